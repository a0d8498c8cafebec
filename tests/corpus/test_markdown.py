"""Markdown: titles, headings, code and tables are what an author means by them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.corpus.markdown import read_markdown
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.splitting import (
    LONGEST_BLOCK,
    Block,
    Fields,
    Heading,
    Part,
    Text,
    Title,
    document_title,
    split_document,
)


def parts(text: str) -> list[Part]:
    return list(read_markdown(text.splitlines(keepends=True)))


def passages(text: str) -> list[tuple[str, str]]:
    found = parts(text)
    title = document_title(found, "file")
    return [(p.title, p.text) for p in split_document(found, "f", title, ReadingOptions())]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "# Guide\n\nText.\n## Setup\n### Steps\nMore.",
            [("Guide", "Text."), ("Guide: Setup: Steps", "More.")],
        ),
        ("## Steps\na\n# Guide\nb", [("Guide: Steps", "a"), ("Guide", "b")]),  # never a `## Steps`
        ("## Steps\na", [("file: Steps", "a")]),
        ("---\ntitle: Manual\n---\n# Guide\na", [("Manual: Guide", "a")]),
        ("---\ntitle: 'Guide'\n---\n# Guide\na", [("Guide", "a")]),
        ("Before.\n  # Late #2 ##  \nAfter.", [("Late #2", "Before."), ("Late #2", "After.")]),
        ("```\n# a comment\n```\n# Title\r\ntext", [("Title", "```\n# a comment\n```"), ("Title", "text")]),
        ("~~~\n```\n# c\n~~~\n# Title\ntext", [("Title", "~~~\n```\n# c\n~~~"), ("Title", "text")]),
        ("#hashtag\n    # code\n#\n####### seven", [("file", "#hashtag # code # ####### seven")]),
        ("Guide\n=====\na\n\nSetup\n---\nb", [("Guide", "a"), ("Guide: Setup", "b")]),
        ("# A\rx\r## B\ry\r", [("A", "x"), ("A: B", "y")]),  # CR alone
    ],
)
def test_titles(text: str, expected: list[tuple[str, str]]) -> None:
    assert passages(text) == expected


@pytest.mark.parametrize(
    "text",
    ["- item\n---\n", "1. item\n---\n", "> quote\n---\n", "a\nb\n---\n", "---\n", "\n---\n", "| a\n---\n"],
)
def test_a_line_across_the_page_underlines_no_heading(text: str) -> None:
    assert not any(isinstance(part, Heading) for part in parts(text))


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("a\n```python\nx  =  1\n\n  # y\n```\nb", "```python\nx  =  1\n\n  # y\n```"),
        ("1. do\n   ```\n   code\n   ```\n2. then", "   ```\n   code\n   ```"),
        ("````\n```\n````\n", "````\n```\n````"),
        ("```\nnever closed\n# no heading", "```\nnever closed\n# no heading"),
        ("text\na | b\n---|:-:\n1 | 2\n\nend", "a | b\n---|:-:\n1 | 2"),
        ("| a |\n|---|\n| 1 |\nnot of it", "| a |\n|---|\n| 1 |"),
    ],
)
def test_code_and_tables_are_blocks(text: str, block: str) -> None:
    found = [part.text for part in parts(text) if isinstance(part, Block)]
    assert found == [block]
    assert not any(isinstance(part, Heading) for part in parts(text))


def test_code_in_a_line_opens_no_block() -> None:
    assert parts("```inline``` code\n# H") == [Text("```inline``` code"), Heading("H", 1)]


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("owner: data\nteam: 'a: b'\nn: 3 # three", {"owner": "data", "team": "a: b", "n": "3"}),
        ("tags: [a, b]\nlist:\n  - x\nblock: |\n  y\nanchor: *z\nmap: {a: 1}", {"tags": "[a, b]"}),
        ("a: 1\na: 2\n: x\nno colon\nurl: http://x", {"a": "1", "url": "http://x"}),
        ("a: &x [*x, *x]", {}),
    ],
)
def test_front_matter(text: str, fields: dict[str, str]) -> None:
    found = parts(f"---\n{text}\n---\nrest")
    assert found == ([Fields(fields)] if fields else []) + [Text("rest")]
    assert parts(f"---\ntitle: T\n{text}\n...\nrest")[0] == Title("T")


def test_what_only_looks_like_front_matter_is_text() -> None:
    assert parts("---\na: b\nno end") == [Text("---"), Text("a: b"), Text("no end")]
    long = "---\n" + "a: b\n" * 2000 + "---\n"
    assert len(parts(long)) == 2001 or all(isinstance(part, Text | Heading) for part in parts(long))


def test_a_block_and_a_heading_are_bounded() -> None:
    blocks = parts("```\n" + "x\n" * LONGEST_BLOCK)
    assert len(blocks) > 1
    assert all(isinstance(block, Block) and len(block.text) <= 3 * LONGEST_BLOCK for block in blocks)
    assert parts("# " + "x" * 10_000) == [Text("# " + "x" * 10_000)]


@given(st.text(st.sampled_from("ab #`~|-=>\n\r\t:") | st.characters(exclude_categories=["Cs"]), max_size=300))
def test_no_word_is_lost(text: str) -> None:
    text = "\n" + text  # no front matter
    words: list[str] = []
    for part in parts(text):
        match part:
            case Heading():
                words += part.text.split()
            case Text() | Block():
                words += part.text.split()
    letters = [letter for word in text.split() for letter in word if letter not in "#=-"]
    assert [letter for word in words for letter in word if letter not in "#=-"] == letters
