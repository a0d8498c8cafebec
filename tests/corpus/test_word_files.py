"""DOCX: headings, paragraphs and tables in their order; bombs and damaged files are one typed error."""

import io
from pathlib import Path
from typing import Any

import pytest

from ragengine.corpus import word_files
from ragengine.corpus.passage import Passage
from ragengine.errors import PassagesError
from tests.corpus.files import read, rezipped

docx = pytest.importorskip("docx")


def saved(document: Any) -> bytes:
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


@pytest.fixture(scope="module")
def guide() -> bytes:
    document = docx.Document()
    document.core_properties.title = "Guide"
    document.add_heading("Guide", 0)
    document.add_paragraph("Before.")
    document.add_heading("Setup", 1)
    table = document.add_table(2, 2)
    for cell, text in zip((cell for row in table.rows for cell in row.cells), "abcd", strict=True):
        cell.text = text
    document.add_heading("Steps", 2)
    document.add_paragraph("one\ttwo")
    document.add_page_break()
    document.add_paragraph("next page")
    return saved(document)


def test_headings_paragraphs_and_tables(tmp_path: Path, guide: bytes) -> None:
    assert read(tmp_path / "a.docx", guide) == [
        Passage("a.docx#0", "Guide", "Before."),
        Passage("a.docx#1", "Guide: Setup", "a | b\nc | d"),
        Passage("a.docx#2", "Guide: Setup: Steps", "one two"),
        Passage("a.docx#3", "Guide: Setup: Steps", "next page"),
    ]


def test_titles(tmp_path: Path) -> None:
    document = docx.Document()
    document.core_properties.title = ""
    document.add_paragraph("text")
    assert [p.title for p in read(tmp_path / "Name.docx", saved(document))] == ["Name"]
    document.add_heading("Manual", 1)
    assert [p.title for p in read(tmp_path / "Name.docx", saved(document))] == ["Manual", "Manual"]


def test_what_other_programs_put_around_text(tmp_path: Path, guide: bytes) -> None:
    """Content controls, accepted insertions, and a text box that is there twice for old programs."""
    w = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    mc = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    body = (
        "<w:sdt><w:sdtContent><w:p><w:r><w:t>control</w:t></w:r></w:p></w:sdtContent></w:sdt>"
        "<w:p><w:ins><w:r><w:t>new</w:t></w:r></w:ins><w:del><w:r><w:delText>old</w:delText></w:r></w:del></w:p>"
        "<w:p><w:r><mc:AlternateContent><mc:Choice><w:t>box</w:t></mc:Choice>"
        "<mc:Fallback><w:t>box</w:t></mc:Fallback></mc:AlternateContent></w:r></w:p>"
    )
    changed = rezipped(
        guide, {"word/document.xml": f"<w:document {w} {mc}><w:body>{body}</w:body></w:document>".encode()}
    )
    assert [p.text for p in read(tmp_path / "a.docx", changed)] == ["control new box"]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: content[:2000],
        lambda content: rezipped(content, {"word/document.xml": b"<a>"}),
        lambda content: rezipped(content, {"word/document.xml": b"<a/>"}),
        lambda content: rezipped(content, {"[Content_Types].xml": b""}),
        lambda content: rezipped(content, {"_rels/.rels": b"<x/>"}),
    ],
)
def test_damaged_files_are_one_sentence(tmp_path: Path, guide: bytes, change: Any) -> None:
    with pytest.raises(PassagesError, match=r"a\.docx cannot be read: it is damaged, or not a DOCX"):
        read(tmp_path / "a.docx", change(guide))


def test_bombs_are_refused(tmp_path: Path, guide: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_files, "_MOST_XML", 1 << 20)
    bomb = rezipped(guide, {"word/document.xml": b" " * (8 << 20)})
    with pytest.raises(
        PassagesError, match="its text unpacks to more than 1048576 bytes; split the document"
    ):
        read(tmp_path / "a.docx", bomb)
    pictures = rezipped(guide, {"docProps/thumbnail.jpeg": bytes(64 << 20)})
    assert len(read(tmp_path / "a.docx", pictures)) == 4  # they are not unpacked
    monkeypatch.setattr(word_files, "_MOST_MEMBERS", 3)
    with pytest.raises(PassagesError, match=r"it has \d+ parts, more than the 3 that are read"):
        read(tmp_path / "a.docx", guide)


def test_entities_are_not_expanded(tmp_path: Path, guide: bytes) -> None:
    w = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    laughs = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
    (tmp_path / "secret").write_text("secret")
    doctype = f'<!DOCTYPE x [<!ENTITY l0 "ha">{laughs}<!ENTITY s SYSTEM "file://{tmp_path}/secret">]>'
    body = "<w:body><w:p><w:r><w:t>a&l9;&s;b</w:t></w:r></w:p></w:body>"
    changed = rezipped(guide, {"word/document.xml": f"{doctype}<w:document {w}>{body}</w:document>".encode()})
    try:
        found = "".join(p.text for p in read(tmp_path / "a.docx", changed))
    except PassagesError as error:
        found = str(error)
    assert "secret" not in found.replace(str(tmp_path), "")
    assert "haha" not in found
