"""Where the vectors of an index come from, and the file they are stored in."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ragengine.bundle import Bundle
from ragengine.errors import PassagesError
from ragengine.retrieval.arrow import has_embeddings, read_dataset_embeddings
from ragengine.retrieval.encoder import TextEncoder
from ragengine.retrieval.passages import passages_kind
from ragengine.retrieval.plan import ROWS_AT_ONCE
from ragengine.retrieval.progress import Report
from ragengine.retrieval.store import PassageStore
from ragengine.retrieval.vectors import FP16_MAX, FloatArray, HalfArray, open_vectors
from ragengine.sessions import Device

# Passages sorted by length together: enough for little padding, few enough for any memory.
_SORTED_TOGETHER = 4096

Blocks: TypeAlias = Callable[[PassageStore, int, int], Iterator[FloatArray | HalfArray]]
"""``blocks(store, first, done)`` gives the vectors of the passages from row ``first`` on, but for the
``done`` that are stored already, in order, as float32 or fp16 [rows, E]."""


@dataclass(frozen=True)
class VectorSource:
    """Vectors by the name of their origin; ``count`` of them where that is known before they are read."""

    name: str
    blocks: Blocks
    count: int | None = None

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


def choose_source(
    passages: Path,
    embeddings: str | Path | None,
    bundle: Bundle,
    *,
    device: Device,
    threads: int | None,
    batch_tokens: int,
) -> VectorSource:
    """The file ``embeddings`` where given, else a dataset's own column, else the bundle's passage encoder."""
    if embeddings is not None:
        return _file_source(Path(embeddings))
    if passages_kind(passages) == "dataset" and has_embeddings(passages):
        return VectorSource(
            f"column 'embeddings' of {passages.name}",
            lambda store, first, done: _skipping(read_dataset_embeddings(passages), done),
        )
    spec = bundle.manifest.passage_encoder
    if spec is None:
        raise PassagesError(
            f"The bundle {bundle.path} has no passage encoder and no embeddings are given; export it with "
            "--context-encoder, or give --embeddings FILE.npy."
        )
    encoder = TextEncoder.load(bundle, spec, device=device, threads=threads)
    return VectorSource(
        f"passage encoder {spec.name}",
        lambda store, first, done: (
            encoder.encode_by_length([(p.title, p.text) for p in block], batch_tokens)
            for block in store.blocks(_SORTED_TOGETHER, first + done)
        ),
    )


def _file_source(path: Path) -> VectorSource:
    vectors = open_vectors(path, np.float32, PassagesError)
    return VectorSource(
        f"file {path.name}", lambda store, first, done: in_blocks(vectors[done:]), len(vectors)
    )


def in_blocks(vectors: FloatArray | HalfArray) -> Iterator[FloatArray | HalfArray]:
    """``vectors`` [N, E] in blocks of rows."""
    return (vectors[start : start + ROWS_AT_ONCE] for start in range(0, len(vectors), ROWS_AT_ONCE))


def _skipping(blocks: Iterable[FloatArray], done: int) -> Iterator[FloatArray]:
    for block in blocks:
        yield block[done:]
        done = max(0, done - len(block))


def open_vector_file(path: Path, shape: tuple[int, int], *, resume: bool = False) -> HalfArray:
    """A new ``.npy`` file of fp16 ``shape`` = [N, E] to write into; with ``resume`` the one that is there."""
    if resume and path.exists():
        return np.lib.format.open_memmap(path, mode="r+")
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)


def fill_vectors(
    stored: HalfArray,
    blocks: Iterable[FloatArray | HalfArray],
    source: VectorSource,
    report: Report,
    done: int = 0,
    saved: Callable[[int, float], object] | None = None,
) -> float:
    """Write ``blocks`` into ``stored`` [N, E] from row ``done`` on; the largest norm of what was written.

    ``saved(rows, max_norm)`` is called after each block.  Raises :class:`PassagesError` for vectors of
    another length or number, and those that fp16 cannot hold.
    """
    count, dimension = stored.shape
    max_norm = 0.0
    for block in blocks:
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
        stored[done : done + len(half)] = half
        squares = np.einsum("ke,ke->k", half, half, dtype=np.float64)  # converts as it goes: no copy
        max_norm = max(max_norm, float(np.sqrt(squares.max(initial=0.0))))
        done += len(half)
        report(done, count)
        if saved is not None:
            saved(done, max_norm)
    if done < count:
        raise source.wrong_count(f"only {done}", count)
    if isinstance(stored, np.memmap):
        stored.flush()
    return max_norm
