"""Parts of documents become passages: no word is lost, headings are titles, blocks stay whole."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.corpus import splitting
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Passage
from ragengine.corpus.splitting import Block, Fields, Heading, Page, Part, Text, Title, document_title
from tests.corpus.files import read


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("texts")


def split(*parts: Part, words: int = 4, overlap: int = 0, title: str = "D") -> list[Passage]:
    options = ReadingOptions(passage_words=words, overlap=overlap)
    return list(splitting.split_document(parts, "d", title, options))


def titles_and_texts(*parts: Part, words: int = 4, overlap: int = 0) -> list[tuple[str, str]]:
    return [(passage.title, passage.text) for passage in split(*parts, words=words, overlap=overlap)]


@given(text=st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \n#"), max_size=2000))
def test_chunks_hold_every_word_once_in_order(folder: Path, text: str) -> None:
    passages = read(folder / "some.txt", text)
    words = text.removeprefix("\ufeff").split()
    assert " ".join(passage.text for passage in passages).split() == words
    assert [len(passage.text.split()) for passage in passages[:-1]] == [100] * (len(passages) - 1)
    assert [passage.id for passage in passages] == [f"some.txt#{number}" for number in range(len(passages))]
    assert {passage.title for passage in passages} <= {"some"}
    assert len(passages) == -(-len(words) // 100)


def test_exact_multiples_and_one_long_line(folder: Path) -> None:
    passages = read(folder / "long.txt", "word " * 200_000)
    assert len(passages) == 2000
    assert {passage.text for passage in passages} == {" ".join(["word"] * 100)}


def test_a_passage_ends_where_a_heading_begins_and_has_the_headings_above_it() -> None:
    assert titles_and_texts(
        Text("before"),
        Heading("Guide", 1),
        Heading("Setup", 2),
        Text("a b"),
        Heading("Steps", 3),
        Text("c"),
        Heading("Use", 2),
        Text("d"),
        Heading("Appendix", 1),
        Text("e"),
    ) == [
        ("D", "before"),
        ("D: Guide: Setup", "a b"),
        ("D: Guide: Setup: Steps", "c"),
        ("D: Guide: Use", "d"),
        ("D: Appendix", "e"),
    ]


def test_the_title_is_not_repeated_as_its_own_heading() -> None:
    parts = [Heading("Guide", 1), Heading("Setup", 2), Heading("Steps", 3), Text("a")]
    assert document_title(parts, "file") == "Guide"
    assert split(*parts, title="Guide")[0].title == "Guide: Setup: Steps"


@pytest.mark.parametrize(
    ("parts", "title"),
    [
        ([Title("T"), Heading("Guide", 1)], "T"),
        ([Heading("Steps", 2), Heading("Guide", 1)], "Guide"),
        ([Heading("Steps", 2)], "file"),
        ([Heading("Top", 0), Heading("Guide", 1)], "Top"),
        ([], "file"),
    ],
)
def test_title_of_a_document(parts: list[Part], title: str) -> None:
    assert document_title(parts, "file") == title


def test_a_heading_without_text_below_it_is_a_passage_of_its_own() -> None:
    assert titles_and_texts(Heading("A", 2), Heading("B", 3), Heading("Call 555", 2)) == [
        ("D: A: B", "B"),
        ("D: Call 555", "Call 555"),
    ]


def test_overlap_repeats_words_within_a_section_only() -> None:
    assert titles_and_texts(Text("a b c d"), Text("e f g"), Heading("H", 2), Text("h"), overlap=1) == [
        ("D", "a b c d"),
        ("D", "d e f g"),
        ("D: H", "h"),
    ]
    assert titles_and_texts(Text("a b c d"), overlap=3) == [
        ("D", "a b c d")
    ]  # nothing but an overlap is left


@given(
    words=st.lists(st.sampled_from("abcdefgh"), max_size=60),
    size=st.integers(2, 9),
    overlap=st.integers(0, 8),
)
def test_overlap_loses_no_word(words: list[str], size: int, overlap: int) -> None:
    overlap = min(overlap, size - 1)
    passages = [p.text.split() for p in split(Text(" ".join(words)), words=size, overlap=overlap)]
    assert all(
        first[-overlap:] == second[:overlap] for first, second in itertools.pairwise(passages) if overlap
    )
    assert [word for n, p in enumerate(passages) for word in p[overlap if n else 0 :]] == words
    assert all(len(passage) == size for passage in passages[:-1])


def test_blocks_stay_whole_with_their_lines() -> None:
    block = "x = 1\n  y = 2\nz"
    assert titles_and_texts(Text("a b"), Block(block), Text("c")) == [
        ("D", "a b"),
        ("D", block),
        ("D", "c"),
    ]
    assert titles_and_texts(Text("a"), Block("b\nc"), Text("d e")) == [("D", "a\nb\nc\nd"), ("D", "e")]


def test_a_huge_block_is_split_at_line_ends() -> None:
    lines = [f"{number} | x" for number in range(50)]
    passages = titles_and_texts(Block("\n".join(lines)), words=4)
    assert "\n".join(text for _, text in passages) == "\n".join(lines)
    assert {len(text.split()) for _, text in passages} == {3}
    long_line = titles_and_texts(Block(" ".join(["w"] * 50)), words=4)
    assert [len(text.split()) for _, text in long_line] == [4] * 12 + [2]


def test_pages_end_passages_and_are_metadata() -> None:
    passages = split(Fields({"owner": "x"}), Page(1), Text("a"), Page(2), Text("b"), Page(), Text("c"))
    assert [(p.text, p.metadata) for p in passages] == [
        ("a", {"owner": "x", "page": "1"}),
        ("b", {"owner": "x", "page": "2"}),
        ("c", {"owner": "x", "page": "2"}),
    ]


def test_a_passage_is_bounded_in_characters_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "_LONGEST_PASSAGE", 10)
    assert [p.text for p in split(*[Text("x" * 8)] * 4, words=100)] == [f"{'x' * 8} {'x' * 8}"] * 2


def test_splitting_streams() -> None:
    def endless() -> Iterator[Part]:
        while True:
            yield Text("a b c")

    passages = splitting.split_document(endless(), "d", "D", ReadingOptions())
    assert [next(passages).id for _ in range(3)] == ["d#0", "d#1", "d#2"]


@pytest.mark.parametrize(
    ("passage", "ids"),
    [
        (Passage("x", "t", "a b c d e"), ["x#0", "x#1"]),
        (Passage("x", "t", "a b"), ["x"]),
        (Passage("x", "t", ""), ["x"]),
        (Passage("", "t", "a b c d e", numbered=True), ["", ""]),
    ],
)
def test_records_are_split_where_words_are_given(passage: Passage, ids: list[str]) -> None:
    found = list(splitting.split_record(passage, ReadingOptions(passage_words=4)))
    assert [one.id for one in found] == ids
    assert " ".join(one.text for one in found) == passage.text
    assert list(splitting.split_record(passage, ReadingOptions())) == [passage]
