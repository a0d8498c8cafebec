"""`Corpus`: what a path of passages is, is found out once, whoever asks how often."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine.corpus import folder as folder_module
from ragengine.corpus.corpus import Corpus
from ragengine.corpus.delimited import Table
from ragengine.corpus.documents import DocumentFile
from ragengine.corpus.json_lines import JsonLines
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Passage
from ragengine.errors import InputError, PassagesError
from ragengine.indexing.build import build_index
from ragengine.indexing.update import add_passages
from tests.support.bundles import random_vectors


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are walked from now on."""
    walked: list[Path] = []

    def walk(folder: Path, *arguments: Any, **settings: Any) -> Iterator[Any]:
        walked.append(folder)
        return os_walk(folder, *arguments, **settings)

    os_walk = os.walk
    monkeypatch.setattr(folder_module.os, "walk", walk)
    return walked


@pytest.fixture
def markdown(tmp_path: Path) -> Path:
    """A folder of three Markdown files, two of them in a subfolder."""
    folder = tmp_path / "notes"
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.md", "deeper/b.md", "deeper/c.markdown"):
        (folder / name).write_text(f"# {name}\n" + "word " * 150)
    return folder


def test_a_folder_is_walked_once_by_each_command(
    tmp_path: Path, markdown: Path, walks: list[Path], bundle: Path
) -> None:
    np.save(tmp_path / "vectors.npy", random_vectors(6))
    index = tmp_path / "index"
    build_index(markdown, index, bundle=bundle, embeddings=tmp_path / "vectors.npy")
    assert walks == [markdown]
    (markdown / "a.md").rename(tmp_path / "added.md")
    for name in ("b.md", "c.markdown"):
        (markdown / "deeper" / name).unlink()
    (markdown / "d.md").write_text("word " * 10)
    np.save(tmp_path / "more.npy", random_vectors(1, seed=1))
    walks.clear()
    manifest = add_passages(index, markdown, bundle=bundle, embeddings=tmp_path / "more.npy")
    assert manifest.count == 7
    assert walks == [markdown]


def test_everything_about_a_folder_comes_from_one_walk(markdown: Path, walks: list[Path]) -> None:
    corpus = Corpus.open(markdown)
    assert corpus.inputs == (markdown,)
    assert {type(source) for source in corpus.sources} == {DocumentFile}
    assert [file.relative_to(markdown).as_posix() for file in corpus.files] == [
        "a.md",
        "deeper/b.md",
        "deeper/c.markdown",
    ]
    assert corpus.bytes == sum(file.stat().st_size for file in corpus.files)
    assert corpus.estimate() == 6
    assert len(list(corpus.read())) == 6
    assert corpus.left_out == ()
    assert not corpus.has_embeddings()
    assert walks == [markdown]


@pytest.mark.parametrize(
    ("name", "content", "kind", "count"),
    [
        ("p.tsv", "id\ttext\ttitle\n1\tx\ty\n", Table, 2),  # an estimate counts the header
        ("p.csv", "text\n1\n2", Table, 3),
        ("p.JSONL", '{"title": "t", "text": "x"}\n' * 3, JsonLines, 3),
        ("p.txt", "word " * 240, DocumentFile, 3),
    ],
)
def test_a_file_is_its_only_file(tmp_path: Path, name: str, content: str, kind: type, count: int) -> None:
    (tmp_path / name).write_text(content)
    corpus = Corpus.open(str(tmp_path / name))
    assert (type(corpus.sources[0]), corpus.files, corpus.bytes) == (kind, (tmp_path / name,), len(content))
    assert corpus.estimate() == count


def test_an_estimate_leaves_errors_to_the_reader(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_bytes(b'{"title": "t", "text": "x"}\n\xff\n')
    corpus = Corpus.open(tmp_path / "p.jsonl")
    assert corpus.estimate() == 2  # lines, whatever they hold
    with pytest.raises(PassagesError, match="line 2: byte 0xff"):
        list(corpus.read())


@pytest.mark.parametrize(
    ("arrange", "message"),
    [
        (lambda path: None, "does not exist; a passage file or folder was expected"),
        (
            lambda path: path.mkdir(),
            r"has no state\.json, .* and it has no file that can be read as passages; give",
        ),
    ],
)
def test_nothing_to_read_is_an_error_at_once(
    tmp_path: Path, arrange: Callable[[Path], object], message: str
) -> None:
    arrange(tmp_path / "passages")
    with pytest.raises(PassagesError, match=message):
        Corpus.open(tmp_path / "passages")


def test_several_inputs_are_read_in_their_order(tmp_path: Path, markdown: Path) -> None:
    (tmp_path / "p.tsv").write_text("text\nx\n")
    (tmp_path / "q.jsonl").write_text('{"text": "y"}\n{"id": 7, "text": "z"}\n')
    corpus = Corpus.open([tmp_path / "q.jsonl", str(markdown), tmp_path / "p.tsv", tmp_path / "q.jsonl"])
    assert corpus.name == "q.jsonl, notes, p.tsv and 1 more"
    assert [p.id for p in corpus.read(10)] == [
        "10",
        "7",
        *(f"{n}#{i}" for n in NAMES for i in (0, 1)),
        "18",
        "19",
        "7",
    ]
    assert len(corpus.files) == 6
    assert corpus.bytes == sum(file.stat().st_size for file in corpus.files)
    assert corpus.estimate() == 12


NAMES = ("a.md", "deeper/b.md", "deeper/c.markdown")


@dataclass
class Note:
    """What another program calls a document."""

    text: str
    title: str = ""
    id: str = ""


def test_passages_of_a_program(tmp_path: Path) -> None:
    given: list[Any] = [
        {"text": "a", "owner": "x"},
        {"_id": 3, "title": "t", "text": "b"},
        Note("c"),
        Note("d", "u", "n"),
    ]
    expected = [
        Passage("5", "", "a", metadata={"owner": "x"}),
        Passage("3", "t", "b"),
        Passage("7", "", "c"),
        Passage("n", "u", "d"),
    ]
    for passages in (given, iter(given), tuple(given)):
        corpus = Corpus.open(passages)
        assert corpus.given
        assert list(corpus.read(5)) == expected
    assert Corpus.open(given).estimate() == 4
    assert Corpus.open(iter(given)).estimate() == 0
    found = Corpus.open([{"body": "a b c"}], ReadingOptions(text_field="body", passage_words=2)).read()
    assert [p.text for p in found] == ["a b", "c"]


def test_passages_of_a_program_stream() -> None:
    def endless() -> Iterator[dict[str, str]]:
        while True:
            yield {"text": "x"}

    passages = Corpus.open(endless()).read()
    assert [next(passages).id for _ in range(3)] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("passages", "error", "message"),
    [
        (3, InputError, "passages is 3; give a path, paths, or passages as dicts"),
        ({"text": "a"}, InputError, "passages is {'text': 'a'}; give"),
        (b"a.tsv", InputError, "passages is b'a.tsv'"),
        (None, InputError, "passages is None"),
        (
            [{"text": "a"}, "b"],
            PassagesError,
            "passage 1 of those given is 'b'; give dicts .* or a list of paths",
        ),
        ([{"title": "a"}], PassagesError, "passage 0 of those given: there is no 'text', only 'title'"),
        ([{"text": 7}], PassagesError, "passage 0 of those given: 'text' must be a string, found int"),
        (["a.tsv", 3], PassagesError, "passage 0 of those given is 'a.tsv'"),
    ],
)
def test_what_is_no_passages(passages: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        list(Corpus.open(passages).read())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"passage_words": 0}, "passage_words is 0; it must be a whole number from 1"),
        ({"passage_words": True}, "passage_words is True"),
        ({"passage_words": 2.0}, "passage_words is 2.0"),
        (
            {"passage_words": 10, "overlap": 10},
            "overlap is 10; it must be a whole number from 0 to 9, fewer words",
        ),
        ({"overlap": -1}, "overlap is -1; it must be a whole number from 0 to 99"),
        ({"text_field": ""}, "text_field is ''; it must be the name of a column"),
        ({"id_field": 3}, "id_field is 3"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ReadingOptions(**options)


def test_embeddings_are_used_where_all_inputs_have_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": ["a"], "embeddings": [[1.0, 2.0]]}), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("text\nb\n")
    both = Corpus.open([tmp_path / "a.parquet", tmp_path / "a.parquet"])
    assert both.has_embeddings()
    assert np.concatenate(list(both.read_embeddings())).tolist() == [[1.0, 2.0], [1.0, 2.0]]
    assert not Corpus.open([tmp_path / "a.parquet", tmp_path / "b.csv"]).has_embeddings()
    assert "The column 'embeddings' of" in caplog.text
