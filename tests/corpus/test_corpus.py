"""`Corpus`: what a path of passages is, is found out once, whoever asks how often."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine.corpus import folder as folder_module
from ragengine.corpus.corpus import Corpus
from ragengine.corpus.delimited import Table
from ragengine.corpus.documents import DocumentFile
from ragengine.corpus.json_lines import JsonLines
from ragengine.errors import PassagesError
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
