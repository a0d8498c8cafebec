"""Where the vectors of an index come from, and the file they are stored in."""

import io
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ragengine.arrays import FloatArray, HalfArray, RowArray
from ragengine.bundle.bundle import Bundle
from ragengine.bundle.manifest import EncoderSpec
from ragengine.corpus.corpus import Corpus
from ragengine.corpus.passage import Passage
from ragengine.errors import InputError, PassagesError
from ragengine.indexing.inputs import shown_name
from ragengine.indexing.plan import ROWS_AT_ONCE
from ragengine.messages import short_repr
from ragengine.retrieval.encoder import TextEncoder, comparable
from ragengine.retrieval.passage_store import BLOCK_CHARACTERS, PassageStore
from ragengine.retrieval.vector_index import FP16_MAX
from ragengine.runtime.devices import Device
from ragengine.runtime.progress import Report
from ragengine.storage.foreign_files import checked_path
from ragengine.storage.npy import as_float32, open_given_vectors, read_rows

# Passages that are sorted by length together: enough for little padding, few enough for any memory.
_SORTED_TOGETHER = 4096
_CHARACTER, _TOKEN = 4, 40  # bytes, at most: Python's str, and an int in a list


EmbeddingsInput: TypeAlias = str | Path | Callable[[int], Iterable[NDArray[Any]]]
"""The path of a ``.npy``; or a function of a row that yields the vectors from that row on, in blocks."""


@dataclass(frozen=True)
class PendingPassages:
    """Passages of ``store`` that wait for vectors: from row ``first`` on, without the first ``done``.

    ``advanced`` may be called with how many of the next vectors are made, before they are handed over.
    """

    store: PassageStore
    first: int
    done: int
    advanced: Callable[[int], object] = lambda rows: None

    def blocks(self, size: int) -> Iterator[list[Passage]]:
        """The passages in order, in lists of ``size`` (the last may be shorter)."""
        return self.store.blocks(size, self.first + self.done)


@dataclass(frozen=True)
class VectorSource:
    """Where the vectors of passages come from.

    name     of the origin, for messages and the manifest
    blocks   the vectors of the pending passages, in order, float32 or fp16 [rows, E]
    count    how many vectors there are in all, where that is known before they are read
    memory   bytes that making them takes: an upper bound, beside the longest passage
    """

    name: str
    blocks: Callable[[PendingPassages], Iterator[FloatArray | HalfArray]]
    count: int | None = None
    memory: int = 0

    def wrong_count(self, found: str, count: int) -> PassagesError:
        """The error for ``found`` vectors beside ``count`` passages."""
        return PassagesError(
            f"The {self.name} has {found} vectors for {count} passages; "
            "give one vector a passage, in file order."
        )

    def check_count(self, count: int) -> None:
        """Raise :class:`PassagesError` where there are more or fewer vectors than passages."""
        if self.count is not None and self.count != count:
            raise self.wrong_count("more" if self.count > count else f"only {self.count}", count)


def given_vectors(
    corpus: Corpus, embeddings: EmbeddingsInput | None, spec: EncoderSpec
) -> VectorSource | None:
    """Vectors that come with the passages: ``embeddings``, or a dataset's column; else None.

    They are those of the encoder ``spec``, and become comparable as its own do.
    """
    if callable(embeddings):
        return comparable_vectors(_program_vectors(embeddings), spec)
    if embeddings is not None:
        return comparable_vectors(_file_vectors(checked_path(embeddings, PassagesError)), spec)
    if corpus.has_embeddings():
        column = VectorSource(
            f"column 'embeddings' of {corpus.name}",
            lambda pending: corpus.read_embeddings(pending.done),
        )
        return comparable_vectors(column, spec)
    return None


def comparable_vectors(source: VectorSource, spec: EncoderSpec) -> VectorSource:
    """``source`` as the vectors of the encoder ``spec`` are stored: with the norm 1 for cosine."""
    if spec.similarity != "cosine":
        return source
    return replace(
        source,
        blocks=lambda pending: (
            comparable(np.asarray(block, np.float32), spec) for block in source.blocks(pending)
        ),
    )


def _file_vectors(path: Path) -> VectorSource:
    """The vectors of a ``.npy`` file, which somebody may change meanwhile."""
    vectors = open_given_vectors(path, PassagesError)

    def blocks(pending: PendingPassages) -> Iterator[FloatArray]:
        for start in range(pending.done, len(vectors), ROWS_AT_ONCE):
            try:
                yield as_float32(read_rows(vectors, start, start + ROWS_AT_ONCE))
            except (OSError, ValueError) as reason:
                raise PassagesError(f"{path} cannot be read to its end: {reason}; save it again.") from reason

    return VectorSource(f"file {shown_name(path)}", blocks, len(vectors))


def _program_vectors(embeddings: Callable[[int], Iterable[NDArray[Any]]]) -> VectorSource:
    """The vectors that a program gives, from any row on."""

    def blocks(pending: PendingPassages) -> Iterator[FloatArray | HalfArray]:
        for block in embeddings(pending.done):
            if not isinstance(block, np.ndarray) or block.ndim != 2 or block.dtype.kind != "f":
                raise InputError(
                    f"The function of embeddings gave {short_repr(block)}; it must yield arrays of "
                    "floating-point numbers [rows, dimension]."
                )
            yield block if block.dtype == np.float16 else block.astype(np.float32, copy=False)

    return VectorSource("function of the program", blocks)


def encoded_vectors(
    bundle: Bundle, *, device: Device, threads: int | None, batch_tokens: int
) -> VectorSource:
    """d(z) of the bundle's passage encoder; raises :class:`PassagesError` where it has none."""
    spec = passage_encoder(bundle)
    encoder = TextEncoder.load(bundle, spec, device=device, threads=threads)
    return VectorSource(
        encoder_origin(spec),
        lambda pending: (
            encoder.encode_by_length(
                [(p.title, p.text) for p in block], batch_tokens, on_rows=pending.advanced
            )
            for block in pending.blocks(_SORTED_TOGETHER)
        ),
        memory=_encoding_memory(bundle, spec),
    )


def passage_encoder(bundle: Bundle) -> EncoderSpec:
    """The passage encoder of a bundle; raises :class:`PassagesError` where it has none."""
    spec = bundle.manifest.passage_encoder
    if spec is None:
        raise PassagesError(
            f"The bundle {bundle.path} has no passage encoder and no embeddings are given; export it with "
            "--context-encoder, or give --embeddings FILE.npy."
        )
    return spec


def encoder_origin(spec: EncoderSpec) -> str:
    """The ``name`` of vectors that a passage encoder makes."""
    return f"passage encoder {spec.name}"


def _encoding_memory(bundle: Bundle, spec: EncoderSpec) -> int:
    """Upper bound of what :func:`encoded_vectors` takes: weights, a block of texts, its tokens.

    onnxruntime holds a second copy of the weights for a while, in the order its products read them.
    """
    in_folder = (
        size.size for name, size in bundle.manifest.files.items() if name.startswith(f"{spec.path}/")
    )
    texts = _CHARACTER * 2 * BLOCK_CHARACTERS  # the block, and the next one while it is read
    return 2 * sum(in_folder) + texts + _TOKEN * _SORTED_TOGETHER * spec.tokenizer.max_length


def stored_vectors(name: str, vectors: FloatArray | HalfArray, rows: RowArray | None = None) -> VectorSource:
    """``vectors`` [N, E] of a file or of another index, or those of ``rows``."""
    if rows is None:
        return VectorSource(name, lambda pending: in_blocks(vectors[pending.done :]), len(vectors))
    return VectorSource(
        name, lambda pending: (vectors[block] for block in in_blocks(rows[pending.done :])), len(rows)
    )


def in_blocks(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """``values`` [N, ...] in blocks of rows."""
    return (values[start : start + ROWS_AT_ONCE] for start in range(0, len(values), ROWS_AT_ONCE))


def largest_norm(vectors: HalfArray) -> float:
    """The largest Euclidean norm of ``vectors`` [K, E]."""
    squares = np.einsum("ke,ke->k", vectors, vectors, dtype=np.float64)  # converts as it goes: no copy
    return float(np.sqrt(squares.max(initial=0.0)))


class VectorFile:
    """A ``.npy`` file of ``shape`` = [N, E] or [N] that is written block by block, ``done`` rows so far.

    It is not memory-mapped: on a full disk a write raises :class:`OSError`, whereas storing into mapped
    memory ends the process.
    """

    def __init__(
        self, path: Path, shape: tuple[int, ...], *, done: int = 0, dtype: DTypeLike = np.float16
    ) -> None:
        """Begin a new file, or continue one that has ``done`` rows."""
        self.shape, self.done, self._dtype = shape, done, np.dtype(dtype)
        header = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(self._dtype)
        np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
        self._file = path.open("r+b" if done else "wb")
        if done:
            self._file.seek(len(header.getvalue()) + done * math.prod(shape[1:]) * self._dtype.itemsize)
        else:
            self._file.write(header.getvalue())

    def __enter__(self) -> "VectorFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, block: NDArray[Any]) -> None:
        """Write ``block`` [K, E] after the rows that are done."""
        self._file.write(np.ascontiguousarray(block, self._dtype).data)
        self.done += len(block)

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._file.flush()

    def bring_to_disk(self) -> None:
        """Bring what was written to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())


def fill_vectors(
    stored: VectorFile,
    source: VectorSource,
    pending: PendingPassages,
    report: Report,
    saved: Callable[[float], object],
) -> None:
    """Write the vectors of the pending passages behind those that ``stored`` has.

    ``saved(max_norm)`` is called after each block, with the largest Euclidean norm written so far.  Raises
    :class:`PassagesError` for vectors of another length or number, and those that fp16 cannot hold.
    """
    count, dimension = stored.shape[0] - pending.first, stored.shape[1]
    done = pending.done
    max_norm = 0.0
    report(done, count)

    def advanced(rows: int) -> None:
        report(stored.done - pending.first + rows, count)

    for block in source.blocks(replace(pending, advanced=advanced)):
        if block.shape[1] != dimension:
            raise PassagesError(
                f"The {source.name} has vectors of {block.shape[1]} numbers, the bundle's encoder gives "
                f"{dimension}; use the embeddings of this encoder."
            )
        if done + len(block) > count:
            raise source.wrong_count("more", count)
        with np.errstate(over="ignore"):
            half = block.astype(np.float16)
        unfit = np.flatnonzero(~np.isfinite(half).all(axis=1))
        if len(unfit):
            raise PassagesError(
                f"The {source.name}: the vector of row {done + unfit[0]} has a component that is NaN or "
                f"larger than {FP16_MAX:.0f}, the largest an index stores (fp16)."
            )
        stored.append(half)
        max_norm = max(max_norm, largest_norm(half))
        done += len(half)
        report(done, count)
        saved(max_norm)
    if done < count:
        raise source.wrong_count(f"only {done}", count)
