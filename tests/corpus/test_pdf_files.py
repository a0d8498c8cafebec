"""PDF: text page by page; damaged, encrypted and hostile files are one typed error."""

import zlib
from pathlib import Path

import pytest

from ragengine.corpus.corpus import Corpus
from ragengine.corpus.passage import Passage
from ragengine.errors import PassagesError
from tests.corpus.files import pdf, read, read_or_refuse

PAGES = [["Hello world,", "a second line."], [], ["Page three"]]


def test_pages_are_passages(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read(tmp_path / "Report.pdf", pdf(PAGES, "The Title")) == [
        Passage("Report.pdf#0", "The Title", "Hello world, a second line.", metadata={"page": "1"}),
        Passage("Report.pdf#1", "The Title", "Page three", metadata={"page": "3"}),
    ]
    assert [p.title for p in read(tmp_path / "Report.pdf", pdf(PAGES))] == ["Report", "Report"]
    assert caplog.records == []


def test_a_pdf_without_text_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read(tmp_path / "scan.pdf", pdf([[], []])) == []
    assert "1 document has no text: scan.pdf (scanned pages have to be recognised first" in caplog.text


def test_only_one_page_is_read_at_a_time(tmp_path: Path) -> None:
    broken = pdf([["one"], ["two"]]).replace(b"(two) Tj", b"(two T")
    (tmp_path / "a.pdf").write_bytes(broken)
    passages = Corpus.open(tmp_path / "a.pdf").read()
    assert next(passages).text == "one"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is damaged, or not a PDF"),
        (b"id,text\n", "it is damaged, or not a PDF"),
        (pdf(PAGES)[:300], "it is damaged, or not a PDF"),
        (pdf(PAGES).replace(b"/Kids [", b"/Kids 7 ["), "it is damaged, or not a PDF"),
        (pdf(PAGES).replace(b"/Kids [4 0 R", b"/Kids [2 0 R"), None),  # a page tree that holds itself
        (pdf(PAGES).replace(b"/Contents 5 0 R", b"/Contents 4 0 R"), None),
    ],
)
def test_damaged_files_are_one_sentence(tmp_path: Path, content: bytes, message: str | None) -> None:
    found = read_or_refuse(tmp_path / "a.pdf", content)
    if isinstance(found, str):
        assert found.startswith(f"{tmp_path}/a.pdf cannot be read: ")
        assert message is None or message in found
    else:
        assert message is None


def test_escape_sequences_of_a_file_are_not_printed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    content = pdf(PAGES).replace(b"/Type /Pages", b"/Type /\x1b[2J").replace(b"/F1 12 Tf", b"/\x1b[2J 12 Tf")
    assert "\x1b" not in str(read_or_refuse(tmp_path / "a.pdf", content))
    assert "\x1b" not in "".join(capfd.readouterr())


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    packed = zlib.compress(b" " * (200 << 20), 9)
    stream = b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(packed), packed)
    content = pdf([["x"]])
    begin = content.index(b"<< /Length", content.index(b"5 0 obj"))
    bomb = content[:begin] + stream + content[content.index(b"endstream", begin) + len(b"endstream") :]
    with pytest.raises(PassagesError, match=r"page 1: .*Limit"):
        read(tmp_path / "a.pdf", bomb)


def test_no_program_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pypdf decodes JBIG2 with a program that it finds on the machine."""
    import subprocess

    monkeypatch.setattr("shutil.which", lambda name: "/bin/true")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail(f"{args} was started"))
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: pytest.fail(f"{args} was started"))
    content = pdf([["x"]]).replace(b"stream\n", b"stream\n", 1)
    content = content.replace(b"<< /Length", b"<< /Filter /JBIG2Decode /Length")
    with pytest.raises(PassagesError, match="page 1: "):
        read(tmp_path / "a.pdf", content)


def test_an_encrypted_file_says_so(tmp_path: Path) -> None:
    import pypdf

    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(tmp_path / "a.pdf")
    writer.close()
    with pytest.raises(PassagesError, match="it is encrypted; save it without a password"):
        list(Corpus.open(tmp_path / "a.pdf").read())
