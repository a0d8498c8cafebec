"""Damaged folders of ``datasets.Dataset.save_to_disk``: pyarrow trusts much of a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.ipc

from ragengine.corpus.corpus import Corpus
from tests.robustness.children import Case, Expected
from tests.robustness.mutated.damage import damaged_copy, drawing, flips, instead, spread, truncations, words
from tests.robustness.mutated.indexes import vectors

_DATA, _STATE = "data-00000-of-00001.arrow", "state.json"
_SAMPLED, _SAMPLED_MANY = 150, 6000
STATES: dict[str, Any] = {
    "a number": 7,
    "a list": [],
    "nothing": {},
    "files that are a number": {"_data_files": 7},
    "files that are a text": {"_data_files": "data"},
    "files of numbers": {"_data_files": [7]},
    "files without a name": {"_data_files": [{}]},
    "a name that is a number": {"_data_files": [{"filename": 7}]},
    "a name that leaves": {"_data_files": [{"filename": "../x"}]},
    "a name of the root": {"_data_files": [{"filename": "/etc/passwd"}]},
    "the name ..": {"_data_files": [{"filename": ".."}]},
    "an empty name": {"_data_files": [{"filename": ""}]},
    "a name with NUL": {"_data_files": [{"filename": "a\0b"}]},
    "half a surrogate": {"_data_files": [{"filename": "\ud800"}]},
    "a long name": {"_data_files": [{"filename": "x" * 10_000}]},
    "no files": {"_data_files": []},
    "itself": {"_data_files": [{"filename": _STATE}]},
}
_TEXTS = {"id": [f"id{row}" for row in range(60)], "title": ["title"] * 60, "text": ["text"] * 60}
TABLES: dict[str, Callable[[], dict[str, Any]]] = {
    "numbers": lambda: _TEXTS | {"text": list(range(60))},
    "nulls": lambda: _TEXTS | {"title": [None] * 60},
    "bytes": lambda: _TEXTS | {"text": [b"\xff\xfe"] * 60},
    "embeddings of texts": lambda: _TEXTS | {"embeddings": ["a"] * 60},
    "embeddings of lists of texts": lambda: _TEXTS | {"embeddings": [["a"]] * 60},
    "embeddings of nothing": lambda: (
        _TEXTS | {"embeddings": pyarrow.array([[]] * 60, pyarrow.list_(pyarrow.float32()))}
    ),
    "embeddings that are null": lambda: (
        _TEXTS | {"embeddings": pyarrow.nulls(60, pyarrow.list_(pyarrow.float32()))}
    ),
    "embeddings with nulls": lambda: _TEXTS | {"embeddings": [[1.0, None]] * 60},
    "embeddings of two lengths": lambda: _TEXTS | {"embeddings": [[1.0, 2.0], [1.0]] * 30},
    "embeddings in lists of lists": lambda: _TEXTS | {"embeddings": [[[1.0], [2.0]]] * 60},
    "texts in a dictionary": lambda: _TEXTS | {"text": pyarrow.array(["a", "b"] * 30).dictionary_encode()},
    "large texts": lambda: _TEXTS | {"text": pyarrow.array(["a"] * 60, pyarrow.large_string())},
    "views of texts": lambda: _TEXTS | {"text": pyarrow.array(["a"] * 60, pyarrow.string_view())},
}


def prepare(base: Path) -> None:
    _write(base / "dataset", _TEXTS | {"embeddings": list(vectors())})


def _write(folder: Path, columns: dict[str, Any]) -> None:
    folder.mkdir()
    table = pyarrow.table(columns)
    with (
        pyarrow.OSFile(str(folder / _DATA), "wb") as sink,
        pyarrow.ipc.new_stream(sink, table.schema) as stream,
    ):
        stream.write_table(table, max_chunksize=25)
    (folder / _STATE).write_text(json.dumps({"_data_files": [{"filename": _DATA}]}), "utf-8")


def cases(base: Path, exhaustive: bool) -> Iterator[Case]:
    dataset = base / "dataset"
    yield Case("as it was written", partial(_read_damaged, dataset, _DATA, bytes), "answered")
    for what, state in STATES.items():
        content = json.dumps(state).encode()
        expected: Expected = "either" if what == "no files" else "refused"
        yield Case(
            f"state.json: {what}",
            partial(_read_damaged, dataset, _STATE, partial(instead, content)),
            expected,
        )
    for what, content in {"not JSON": b"{", "so deep": b"[" * 100_000, "not UTF-8": b"\xff"}.items():
        yield Case(
            f"state.json: {what}",
            partial(_read_damaged, dataset, _STATE, partial(instead, content)),
            "refused",
        )
    for what, columns in TABLES.items():
        yield Case(f"columns: {what}", partial(_read_table, columns))
    size = (dataset / _DATA).stat().st_size
    damages = [*truncations(size), *flips(spread(size, 2000, header=800), seed=6)]
    damages += words([place for place in spread(size, 300, header=800) if place < size - 8], 4)
    damages += words([place for place in spread(size, 300, header=800) if place < size - 8], 8)
    most = min(len(damages), _SAMPLED_MANY if exhaustive else _SAMPLED)
    for what, damage in drawing(6).sample(damages, most):
        yield Case(what, partial(_read_damaged, dataset, _DATA, damage))


def _read_damaged(whole: Path, name: str, damage: Callable[[bytes], bytes], folder: Path) -> None:
    _read_all(damaged_copy(whole, name, damage, folder / "dataset"))


def _read_table(columns: Callable[[], dict[str, Any]], folder: Path) -> None:
    _write(folder / "dataset", columns())
    _read_all(folder / "dataset")


def _read_all(dataset: Path) -> None:
    """Read all that an index is built from; everything is text, or a number."""
    corpus = Corpus.open(dataset)
    passages = list(corpus.read())
    assert len(passages) == corpus.estimate()
    for passage in passages:
        (passage.id + passage.title + passage.text).encode("utf-8")
    if corpus.has_embeddings():
        for block in corpus.read_embeddings():
            assert block.dtype == np.float32
            assert block.ndim == 2
