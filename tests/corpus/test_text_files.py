"""Text and Markdown files become passages of 100 words: no word is lost, titles are the documents' own."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.corpus.corpus import Corpus
from ragengine.corpus.passage import Passage
from ragengine.errors import PassagesError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("texts")


@given(text=st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \n#"), max_size=2000))
def test_chunks_hold_every_word_once_in_order(folder: Path, text: str) -> None:
    (folder / "some.txt").write_bytes(text.encode())
    passages = list(Corpus.open(folder / "some.txt").read())
    words = text.removeprefix("\ufeff").split()
    assert " ".join(passage.text for passage in passages).split() == words
    assert [len(passage.text.split()) for passage in passages[:-1]] == [100] * (len(passages) - 1)
    assert [passage.id for passage in passages] == [f"some.txt#{number}" for number in range(len(passages))]
    assert {passage.title for passage in passages} <= {"some"}
    assert len(passages) == -(-len(words) // 100)


def test_exact_multiples_and_one_long_line(folder: Path) -> None:
    (folder / "long.txt").write_text("word " * 200_000)
    passages = list(Corpus.open(folder / "long.txt").read())
    assert len(passages) == 2000
    assert {passage.text for passage in passages} == {" ".join(["word"] * 100)}


@pytest.mark.parametrize(
    ("markdown", "title", "text"),
    [
        ("# The title\n\nSome text.\n## Part\nMore.", "The title", "Some text. ## Part More."),
        ("Before.\n  ## Late #2 ##  \nAfter.", "Late #2", "Before. After."),
        ("```\n# a comment\n```\n# Title\r\ntext", "Title", "``` # a comment ``` text"),
        ("~~~\n```\n# a comment\n~~~\n# Title\ntext", "Title", "~~~ ``` # a comment ~~~ text"),
        ("#hashtag\n    # code\n#\n####### seven\ntext", "page", "#hashtag # code # ####### seven text"),
        ("\ufeff# Marked\ntext", "Marked", "text"),
    ],
)
def test_title_of_markdown_is_its_first_heading(folder: Path, markdown: str, title: str, text: str) -> None:
    (folder / "page.md").write_bytes(markdown.encode())
    assert list(Corpus.open(folder / "page.md").read()) == [Passage("page.md#0", title, text)]


def test_folder_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    for name, text in {
        "b.md": "# B\nb",
        "a/z.TXT": "z",
        "a/y.markdown": "# Y\ny",
        "a/empty.txt": "\n",
        "a/data.csv": "no",
        ".git/x.txt": "hidden",
        ".hidden.md": "hidden",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert list(Corpus.open(tmp_path).read()) == [
        Passage("a/y.markdown#0", "Y", "y"),
        Passage("a/z.TXT#0", "z", "z"),
        Passage("b.md#0", "B", "b"),
    ]


def test_faults_are_named_with_their_file(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "wrong.txt").write_bytes(b"good\n\xff")
    with pytest.raises(PassagesError, match=r"wrong\.txt, line 2: byte 0xff at position 0 is not UTF-8"):
        list(Corpus.open(tmp_path).read())


def test_folder_without_texts_is_told_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "passages.csv").write_text("")
    with pytest.raises(PassagesError, match=r"has no state\.json, .* and it has no text or Markdown files"):
        list(Corpus.open(tmp_path).read())
