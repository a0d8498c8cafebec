"""The actors that make the vectors of parts, and the dataset that runs through them."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import ray
from ray.data import ActorPoolStrategy, DataContext

from ragengine.bundle.bundle import Bundle
from ragengine.errors import PassagesError, RagEngineError
from ragengine.indexing.vector_sources import (
    VectorSource,
    comparable_vectors,
    encoded_vectors,
    stored_vectors,
)
from ragengine.runtime.devices import Device
from ragengine.storage.npy import as_float32, open_given_vectors
from ragengine_ray.error_columns import packed, unpacked
from ragengine_ray.parts import Part, is_whole, write_part
from ragengine_ray.reading import CorpusDatasource, CountedSources, passages_of

_WRITTEN = pyarrow.schema([("count", pyarrow.int64()), ("error", pyarrow.binary())])


@dataclass(frozen=True)
class EncoderSettings:
    """What the actors need to make vectors.

    bundle           the folder of the bundle, the same on every machine
    origin           what the vectors come from, for messages
    embeddings       a ``.npy`` of vectors in the order of the corpus, instead of encoding
    with_embeddings  whether vectors come with the passages
    """

    bundle: str
    origin: str
    embeddings: str | None
    with_embeddings: bool
    device: Device
    threads: int | None
    batch_tokens: int


class PartEncoder:
    """An actor: it loads the encoder once, and writes part after part."""

    def __init__(self, workspace: str, settings: EncoderSettings) -> None:
        self._workspace, self._settings = Path(workspace), settings

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        """Write the part of a table of one row; how many passages it has, or the error that it ended with."""
        (row,) = table.to_pylist()
        error = row["error"]
        if error is None:
            try:
                self._write(row)
            except RagEngineError as reason:
                error = packed(reason)
        count = 0 if error else row["stop"] - row["first"]
        return pyarrow.Table.from_pylist([{"count": count, "error": error}], _WRITTEN)

    def _write(self, row: dict[str, Any]) -> None:
        part = Part(row["first"], row["stop"])
        if not is_whole(self._workspace, part, "size"):  # else Ray does the task a second time
            source = self._encoder or comparable_vectors(self._given(row, part), self._bundle.index_encoder)
            dimension = self._bundle.index_encoder.dimension
            write_part(self._workspace, part, passages_of(row), source, dimension)

    # Both are made in the first call, whose errors are handed over; those of a constructor Ray tries again.
    @functools.cached_property
    def _bundle(self) -> Bundle:
        return Bundle.open(self._settings.bundle)

    @functools.cached_property
    def _encoder(self) -> VectorSource | None:
        settings = self._settings
        if settings.embeddings is not None or settings.with_embeddings:
            return None
        return encoded_vectors(
            self._bundle, device=settings.device, threads=settings.threads, batch_tokens=settings.batch_tokens
        )

    def _given(self, row: dict[str, Any], part: Part) -> VectorSource:
        if self._settings.embeddings is None:
            vectors = np.frombuffer(row["vectors"], np.float32).reshape(part.count, -1)
        else:
            path = Path(self._settings.embeddings)
            vectors = as_float32(open_given_vectors(path, PassagesError)[part.first : part.stop])
        return stored_vectors(f"{self._settings.origin}, from row {part.first} on", vectors)


def encode_parts(
    sources: CountedSources,
    parts: Sequence[Part],
    workspace: Path,
    settings: EncoderSettings,
    *,
    actors: int,
    num_cpus: float,
    num_gpus: float,
) -> Iterator[int]:
    """Write ``parts`` in a pool of at most ``actors``; yields the passages of each part that is finished."""
    if not parts:
        return
    actors = min(actors, len(parts))
    with DataContext.current(_context()):
        dataset = ray.data.read_datasource(
            CorpusDatasource(sources, parts, with_embeddings=settings.with_embeddings),
            override_num_blocks=actors,
            num_cpus=0,  # the actors may have taken all that there are
        ).map_batches(
            PartEncoder,
            fn_constructor_args=(str(workspace), settings),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=actors),
            num_cpus=num_cpus,
            num_gpus=num_gpus or None,
        )
        for row in dataset.iter_rows():
            if row["error"] is not None:
                raise unpacked(row["error"])
            yield int(row["count"])


def _context() -> DataContext:
    """Ray Data without its bars, handing over each part when it is read."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.target_max_block_size = 1
    return context
