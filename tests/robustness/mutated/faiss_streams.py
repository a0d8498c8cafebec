"""FAISS files that are damaged or forged, behind a right hash: FAISS's own readers see all of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ragengine.retrieval.index import FAISS_FILE
from tests.robustness.children import Case
from tests.robustness.mutated.damage import Damage, flips, linked_copy, replace, spread, words
from tests.robustness.mutated.indexes import SERVED, check_answers, write_index
from tests.unit.bundles import rewrite_manifest

_HEADER = 400
"""Bytes at the front of a stream, nearly all of which are numbers that FAISS goes by."""
_SAMPLED, _SAMPLED_MANY = 45, 2500
"""Damages of each kind of index in the default and in the exhaustive run."""


def prepare(base: Path) -> None:
    for name, factory in SERVED.items():
        write_index(base / name, factory)


def cases(base: Path, exhaustive: bool) -> Iterator[Case]:
    for name in SERVED:
        folder = base / name
        yield Case(f"{name}: as it was written", partial(_ask, folder, bytes), "answered")
        damages = list(stream_damages((folder / FAISS_FILE).stat().st_size))
        for what, damage in random.Random(name).sample(damages, _SAMPLED_MANY if exhaustive else _SAMPLED):
            yield Case(f"{name}: {what}", partial(_ask, folder, damage))


def stream_damages(size: int) -> Iterator[Damage]:
    """Ends, bits and numbers of a stream of ``size`` bytes, above all of its header."""
    places = [place for place in spread(size, 200, header=_HEADER) if place <= size - 8]
    for length in range(0, min(_HEADER, size), 8):
        yield f"cut to {length}", lambda whole, length=length: whole[:length]  # type: ignore[misc]
    yield from flips(spread(size, 200, header=_HEADER), seed=size)
    yield from words(places, 4)
    yield from words(places, 8)


def _ask(whole: Path, damage: Callable[[bytes], bytes], folder: Path) -> None:
    index = linked_copy(whole, folder / "index")
    replace(index / FAISS_FILE, damage((whole / FAISS_FILE).read_bytes()))
    rewrite_manifest(index)
    check_answers(index)
