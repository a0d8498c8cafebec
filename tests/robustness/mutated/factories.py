"""Factory strings, drawn and mutated, that are built with: an index that answers, or a refusal in words."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import faiss
import numpy as np

from ragengine.indexing import training
from ragengine.indexing.factory import parse_factory
from ragengine.retrieval.faiss_api import search_faiss
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.runtime.progress import silent
from tests.robustness.children import Case
from tests.robustness.mutated.damage import drawing
from tests.robustness.mutated.indexes import E, vectors

_SAMPLED, _SAMPLED_MANY = 150, 4000
_COUNT = 1200
_DUPLICATES = 100
_SQ = ("SQ4", "SQ6", "SQ8", "SQfp16", "SQbf16")
_WRITTEN = "0123456789,_xkPQIVFHNSWGRfsOL()np- "


def prepare(base: Path) -> None:
    """Nothing is written before."""


def cases(base: Path, exhaustive: bool) -> Iterator[Case]:
    drawn = drawing("factories")
    for number in range(_SAMPLED_MANY if exhaustive else _SAMPLED):
        factory = _drawn(drawn)
        mutated = _mutated(drawn, factory) if number % 2 else factory
        yield Case(f"{number}: {mutated!r}", partial(_build, mutated))


def _drawn(drawn: random.Random) -> str:
    """A string from the grammar, with numbers that are small, and some out of range."""
    n = partial(drawn.choice, (1, 2, 4, 8, 16, 0, 3, 300))
    fast = f"PQ{n()}x4fs{drawn.choice(('', '', '_64', '_33'))}"
    pq = f"PQ{n()}{drawn.choice(('', 'x4', 'x5', 'x6', 'x12', 'x0'))}"
    code = drawn.choice(("Flat", drawn.choice(_SQ), pq, fast))
    index = drawn.choice(
        (
            code,
            f"IVF{n()}{drawn.choice(('', '', '_HNSW', f'_HNSW{n()}'))},{code}",
            f"HNSW{n()}{drawn.choice(('', ',Flat', '_SQ8', '_PQ4'))}",
            f"NSG{n()}",
        )
    )
    opq = drawn.choice((f"OPQ{n()},", f"OPQ{n()}_{n()},"))
    before = drawn.choice(("", "", f"PCA{n()},", f"PCAWR{n()},", opq, f"RR{n()},", "L2norm,", "Pad32,"))
    return before + index + drawn.choice(("", "", "", ",RFlat", ",Refine(SQ8)"))


def _mutated(drawn: random.Random, factory: str) -> str:
    at = drawn.randrange(len(factory) + 1)
    return factory[:at] + drawn.choice(_WRITTEN) + factory[at + drawn.randrange(2) :]


def _build(factory: str, folder: Path) -> None:
    """Everything that a build does with FAISS, of vectors a part of which are one and the same."""
    data = vectors(count=_COUNT).astype(np.float16)
    data[:_DUPLICATES] = data[0]
    parse_factory(factory, E).check_count(_COUNT)
    made = training.empty_faiss_index(factory, E)
    training.train(made, data, factory, 0, 1, silent)
    training.add(made, data, factory, 1, silent)
    training.write_faiss(made, folder / "index.faiss")
    faiss.omp_set_num_threads(1)
    read = read_faiss(folder / "index.faiss", mapped=True)
    for questions in (vectors(1, 1), vectors(2, 20)):
        _, rows = search_faiss(read, questions, 5)
        assert ((rows >= -1) & (rows < _COUNT)).all()
        assert (rows[:, 0] >= 0).all(), "nothing was found"
