"""Folders: every kind of file is read, and what is left out is said, or an error."""

import logging
from pathlib import Path

import pytest

from ragengine.corpus.corpus import Corpus
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Passage
from ragengine.errors import PassagesError
from tests.corpus.files import pdf

STRICT = ReadingOptions(strict=True)


@pytest.fixture
def company(tmp_path: Path) -> Path:
    """A folder such as one has: documents, tables of passages, and other things."""
    folder = tmp_path / "company"
    for name, content in {
        "b.md": b"# B\nb",
        "a/z.TXT": b"z",
        "a/y.markdown": b"# Y\ny",
        "a/page.html": b"<title>P</title><p>p",
        "a/report.pdf": pdf([["r"]], "R"),
        "faq.csv": b"id,text,owner\nq1,answer,data\n",
        "notes.jsonl": b'{"text": "n"}\n',
        "systems.csv": b"name,owner\nx,y\n",
        "list.jsonl": b'{"name": "x"}\n',
        "void.tsv": b"",
        "logo.png": b"\x89PNG",
        ".git/x.txt": b"hidden",
        ".hidden.md": b"hidden",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


LEFT_OUT = (
    "4 files left out: list.jsonl (no field 'text'; it has 'name'), logo.png, "
    "systems.csv (no column 'text'), void.tsv (it is empty)"
)


def test_a_folder_is_read_in_the_order_of_its_paths_and_says_what_it_left_out(
    company: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "ragengine"):
        corpus = Corpus.open(company)
    assert caplog.messages == [f"{company}: {LEFT_OUT}."]
    assert [one.path.name for one in corpus.left_out] == ["list.jsonl", "logo.png", "systems.csv", "void.tsv"]
    assert list(corpus.read()) == [
        Passage("a/page.html#0", "P", "p"),
        Passage("a/report.pdf#0", "R", "r", metadata={"page": "1"}),
        Passage("a/y.markdown#0", "Y", "y"),
        Passage("a/z.TXT#0", "z", "z"),
        Passage("b.md#0", "B", "b"),
        Passage("q1", "", "answer", metadata={"owner": "data"}),
        Passage("6", "", "n"),
    ]


def test_strict_makes_it_an_error(company: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(PassagesError) as caught:
        Corpus.open(company, STRICT)
    assert LEFT_OUT in str(caught.value)
    for name in ("list.jsonl", "logo.png", "systems.csv", "void.tsv"):
        (company / name).unlink()
    assert len(list(Corpus.open(company, STRICT).read())) == 7
    assert caplog.messages == []


def test_many_files_that_are_left_out_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.txt").write_text("a")
    for number in range(8):
        (tmp_path / f"{number}.png").write_text("")
    Corpus.open(tmp_path)
    assert caplog.messages == [f"{tmp_path}: 8 files left out: 0.png, 1.png, 2.png, 3.png, 4.png and 3 more."]


def test_a_name_cannot_write_on_the_terminal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "x\x1b[2J\n.png").write_text("")
    Corpus.open(tmp_path)
    assert all(message.isprintable() for message in caplog.messages)
    assert r"x\x1b[2J\n.png" in caplog.messages[0]


def test_documents_without_text_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, content in {"a.txt": "a", "b.md": "\n", "c.html": "<p>"}.items():
        (tmp_path / name).write_text(content)
    assert len(list(Corpus.open(tmp_path).read())) == 1
    assert caplog.messages == ["2 documents have no text: b.md, c.html."]
    with pytest.raises(
        PassagesError, match=r"2 documents have no text: b\.md, c\.html; remove what is empty"
    ):
        list(Corpus.open(tmp_path, STRICT).read())


def test_a_folder_of_nothing_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "passages.csv").write_text("")
    (tmp_path / "logo.png").write_text("")
    message = (
        r"no file that can be read as passages \(2 files left out: logo\.png, passages\.csv \(it is empty\)\)"
    )
    with pytest.raises(PassagesError, match=message):
        Corpus.open(tmp_path)


def test_a_missing_package_leaves_its_files_out(company: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *a: None if name == "pypdf" else real(name, *a)
    )
    (left_out,) = (one for one in Corpus.open(company).left_out if one.path.suffix == ".pdf")
    assert left_out.reason == 'needs pypdf: pip install "ragengine[documents]"'


def test_faults_are_named_with_their_file(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "wrong.txt").write_bytes(b"good\n\xff")
    with pytest.raises(PassagesError, match=r"wrong\.txt, line 2: byte 0xff at position 0 is not UTF-8"):
        list(Corpus.open(tmp_path).read())
