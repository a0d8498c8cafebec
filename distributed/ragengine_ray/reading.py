"""A corpus as Ray Data reads it: one row a part, its passages in columns of lists."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from typing import Any

import numpy as np
import pyarrow
from ray.data import Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from ragengine.arrays import FloatArray
from ragengine.corpus.hf_dataset import Dataset
from ragengine.corpus.parquet import ParquetFile
from ragengine.corpus.passage import Passage
from ragengine.corpus.sources import PathSource
from ragengine.errors import PassagesError, RagEngineError
from ragengine_ray.error_columns import packed
from ragengine_ray.parts import Part

_TEXTS = pyarrow.list_(pyarrow.large_string())
SCHEMA = pyarrow.schema(
    [
        ("first", pyarrow.int64()),
        ("stop", pyarrow.int64()),
        ("ids", _TEXTS),
        ("titles", _TEXTS),
        ("texts", _TEXTS),
        ("numbered", pyarrow.list_(pyarrow.bool_())),
        ("metadata", _TEXTS),
        ("vectors", pyarrow.large_binary()),
        ("error", pyarrow.binary()),
    ]
)
"""``metadata`` is JSON; ``vectors`` the bytes of float32 [passages, E], null where none come with them.

A corpus that cannot be read ends with a row of ``error`` alone: Ray would change the message of an exception.
"""


def count_passages(source: PathSource) -> int:
    """The number of passages of a source; tables that say it themselves are not read."""
    if isinstance(source, Dataset | ParquetFile) and source.options.passage_words is None:
        return source.count()
    return sum(1 for _ in source.read())


@dataclass(frozen=True)
class CountedSources:
    """The sources of a corpus, and how many passages each was found to have."""

    sources: Sequence[PathSource]
    counts: Sequence[int]

    def read(self, rows: range) -> Iterator[Passage]:
        """The passages of ``rows``; those without an id have their row as one."""
        passages = chain.from_iterable(
            islice(source.read(), skipped, None) for source, skipped in self._from(rows.start)
        )
        for row in rows:
            if (passage := next(passages, None)) is None:
                raise PassagesError(f"The passages have become fewer: there is no row {row}; build again.")
            yield replace(passage, id=str(row)) if passage.numbered else passage

    def read_embeddings(self, rows: range) -> Iterator[FloatArray]:
        """The column ``embeddings`` of ``rows`` on, in blocks of float32 [K, E], which all sources have."""
        for source, skipped in self._from(rows.start):
            assert isinstance(source, Dataset | ParquetFile)
            for block in source.read_embeddings():
                yield block[skipped:]
                skipped = max(0, skipped - len(block))

    def _from(self, row: int) -> Iterator[tuple[PathSource, int]]:
        """The sources from the one with ``row`` on, and how many passages before that it has."""
        first = 0
        for source, count in zip(self.sources, self.counts, strict=True):
            if row < first + count:
                yield source, max(0, row - first)
            first += count


class CorpusDatasource(Datasource):  # type: ignore[misc]  # ray.data is untyped
    """Reads ``parts`` of a corpus, consecutive ones in one task."""

    def __init__(self, sources: CountedSources, parts: Sequence[Part], *, with_embeddings: bool) -> None:
        super().__init__()
        self._sources, self._parts, self._with_embeddings = sources, parts, with_embeddings

    def estimate_inmemory_data_size(self) -> int | None:
        """Not known."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """``parallelism`` tasks, or one a part where there are fewer."""
        ends = np.linspace(0, len(self._parts), min(parallelism, len(self._parts)) + 1).astype(int)
        return [self._task(self._parts[start:stop], per_task_row_limit) for start, stop in pairwise(ends)]

    def _task(self, parts: Sequence[Part], limit: int | None) -> ReadTask:
        sources, with_embeddings = self._sources, self._with_embeddings

        def read() -> Iterator[pyarrow.Table]:
            try:
                for run in _runs(parts):
                    yield from _tables(sources, run, with_embeddings)
            except RagEngineError as error:
                yield pyarrow.Table.from_pylist([{"error": packed(error)}], SCHEMA)

        metadata = BlockMetadata(len(parts), None, None, None)
        return ReadTask(read, metadata, SCHEMA, limit)


def _runs(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """``parts`` in lists of such as follow each other: the sources are opened once for each."""
    run: list[Part] = []
    for part in parts:
        if run and run[-1].stop != part.first:
            yield run
            run = []
        run.append(part)
    if run:
        yield run


def _tables(sources: CountedSources, run: Sequence[Part], with_embeddings: bool) -> Iterator[pyarrow.Table]:
    """A table of one row for each part of a run."""
    rows = range(run[0].first, run[-1].stop)
    passages = sources.read(rows)
    embeddings = _Rows(sources.read_embeddings(rows)) if with_embeddings else None
    for part in run:
        read = list(islice(passages, part.count))
        row = {
            "first": part.first,
            "stop": part.stop,
            "ids": [passage.id for passage in read],
            "titles": [passage.title for passage in read],
            "texts": [passage.text for passage in read],
            "numbered": [passage.numbered for passage in read],
            "metadata": [json.dumps(dict(passage.metadata)) for passage in read],
            "vectors": None if embeddings is None else embeddings.take(part.count).tobytes(),
        }
        yield pyarrow.Table.from_pylist([row], SCHEMA)


class _Rows:
    """Blocks of rows, taken in other numbers."""

    def __init__(self, blocks: Iterable[FloatArray]) -> None:
        self._blocks = iter(blocks)
        self._left: list[FloatArray] = []

    def take(self, count: int) -> FloatArray:
        """The next ``count`` rows; raises :class:`PassagesError` where there are fewer, or E changes."""
        while sum(map(len, self._left)) < count:
            block = next(self._blocks, None)
            if block is None:
                raise PassagesError(
                    "The column 'embeddings' has fewer vectors than there are passages; give one vector a "
                    "passage, in file order."
                )
            if self._left and block.shape[1] != self._left[0].shape[1]:
                raise PassagesError(
                    f"The column 'embeddings' has vectors of {self._left[0].shape[1]} numbers and of "
                    f"{block.shape[1]}; all rows must have the same."
                )
            self._left.append(block)
        rows = np.concatenate(self._left)
        self._left = [rows[count:]]
        return rows[:count]


def passages_of(row: dict[str, Any]) -> list[Passage]:
    """The passages of one row of :data:`SCHEMA`."""
    columns = zip(row["ids"], row["titles"], row["texts"], row["numbered"], row["metadata"], strict=True)
    return [
        Passage(id, title, text, numbered, json.loads(metadata))
        for id, title, text, numbered, metadata in columns
    ]
