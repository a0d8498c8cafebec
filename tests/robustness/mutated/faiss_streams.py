"""FAISS files that are damaged or forged, with a matching hash: FAISS's own readers see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from ragengine.retrieval.manifest import FAISS_FILE
from tests.robustness.children import Case
from tests.robustness.mutated.damage import (
    WORDS,
    Damage,
    check_damaged,
    drawing,
    flips,
    linked_copy,
    spread,
    words,
)
from tests.robustness.mutated.indexes import SERVED, N, check_answers, write_index
from tests.support.bundles import rewrite_manifest

_HEADER = 400
"""Bytes at the front of a stream, nearly all of which FAISS uses."""
_WRONG_FLOATS = (0x7FC00000, 0x7F800000, 0xFF7FFFFF)
"""NaN, infinity and the smallest number, as float32."""
_SAMPLED, _SAMPLED_MANY = 45, 2500
"""Damages of each kind of index in the default and in the exhaustive run."""


def prepare(base: Path) -> None:
    for name, factory in SERVED.items():
        write_index(base / name, factory)


def cases(base: Path, exhaustive: bool) -> Iterator[Case]:
    yield from _forged_lists(base)
    for name in SERVED:
        folder = base / name
        yield Case(
            f"{name}: as it was written",
            partial(check_damaged, folder, FAISS_FILE, bytes, check_answers),
            "answered",
        )
        damages = list(stream_damages((folder / FAISS_FILE).stat().st_size))
        for what, damage in drawing(name).sample(damages, _SAMPLED_MANY if exhaustive else _SAMPLED):
            yield Case(f"{name}: {what}", partial(check_damaged, folder, FAISS_FILE, damage, check_answers))


def _forged_lists(base: Path) -> Iterator[Case]:
    """Numbers that FAISS cannot recognise as wrong."""
    for name in ("ivf_flat", "ivf_pq", "opq_ivf_pq", "refine"):
        for what, forge in FORGERIES.items():
            yield Case(f"{name}: {what}", partial(_ask_forged, base / name, forge))


def _ids(wrong: int, ivf: Any) -> None:
    """Give every vector the id ``wrong``."""
    for number in range(ivf.nlist):
        if size := ivf.invlists.list_size(number):
            faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size)[:] = wrong


def _centroids(value: float, ivf: Any) -> None:
    coarse: Any = faiss.downcast_index(ivf.quantizer)
    faiss.rev_swig_ptr(coarse.get_xb(), ivf.nlist * ivf.d)[:] = value


def _codebook(value: float, ivf: Any) -> None:
    if isinstance(ivf, faiss.IndexIVFPQ):
        faiss.copy_array_to_vector(np.full(ivf.pq.centroids.size(), value, np.float32), ivf.pq.centroids)


def _nprobe(value: int, ivf: Any) -> None:
    ivf.nprobe = value


FORGERIES: dict[str, Callable[[Any], None]] = {
    "all ids are -5": partial(_ids, -5),
    "all ids are 0": partial(_ids, 0),
    "all ids are one too far": partial(_ids, N),
    "all ids are 2^62": partial(_ids, 1 << 62),
    "centroids are NaN": partial(_centroids, np.nan),
    "centroids are infinite": partial(_centroids, np.inf),
    "centroids are one": partial(_centroids, 1.0),
    "the codebook is NaN": partial(_codebook, np.nan),
    "the codebook is infinite": partial(_codebook, -np.inf),
    "nprobe is 0": partial(_nprobe, 0),
    "nprobe is 2^63": partial(_nprobe, 1 << 63),
}


def _ask_forged(whole: Path, forge: Callable[[Any], None], folder: Path) -> None:
    index = linked_copy(whole, folder / "index")
    forged = faiss.read_index(str(whole / FAISS_FILE))
    base = faiss.downcast_index(forged)
    forge(faiss.extract_index_ivf(base.base_index if isinstance(base, faiss.IndexRefine) else forged))
    (index / FAISS_FILE).unlink()
    faiss.write_index(forged, str(index / FAISS_FILE))
    rewrite_manifest(index)
    check_answers(index)


def stream_damages(size: int) -> Iterator[Damage]:
    """Truncations, bits and numbers of a stream of ``size`` bytes, mostly in its header."""
    places = [place for place in spread(size, 200, header=_HEADER) if place <= size - 8]
    for length in range(0, min(_HEADER, size), 8):
        yield f"cut to {length}", lambda whole, length=length: whole[:length]
    yield from flips(spread(size, 200, header=_HEADER), seed=size)
    yield from words(places, 4, (*WORDS, *_WRONG_FLOATS))
    yield from words(places, 8)
