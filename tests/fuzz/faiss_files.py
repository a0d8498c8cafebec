"""Fuzz FAISS files, each in a fork: FAISS parses them in C++, and a damaged one must not end the process."""

import atheris
import faiss
import numpy as np

with atheris.instrument_imports(include=["ragengine"]):
    from ragengine.retrieval.faiss_reader import read_faiss

import functools
import resource
import signal
from pathlib import Path
from random import Random

from tests.fuzz.fuzzing import fuzz
from tests.robustness.forks import in_fork
from tests.support.bundles import random_vectors

_FACTORIES = ("Flat", "SQ8", "IVF2,Flat", "IVF2,PQ2x4", "HNSW4", "OPQ2,IVF2,PQ2x4")
_SECONDS = 10
_MEMORY = 4 << 30


def read_faiss_file(folder: Path, data: bytes) -> None:
    """It is read or refused, in bounded time and memory.

    No coverage comes out of a fork, so ``data`` is not the file, but chooses the changes to one that is good.
    """
    path = folder / "index.faiss"
    path.write_bytes(_changed(Random(data)))
    outcome = in_fork(lambda: _read(path))
    assert outcome.signal is None, f"signal {outcome.signal}"
    assert outcome.error is None or outcome.ours, outcome.error


def _read(path: Path) -> None:
    signal.alarm(_SECONDS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _MEMORY,) * 2)
    for mapped in (True, False):
        read_faiss(path, mapped=mapped)


def _changed(random: Random) -> bytes:
    """A good file with some numbers changed, most of them at its front, and perhaps cut off."""
    file = bytearray(_good(random.choice(_FACTORIES)))
    for _ in range(random.randint(1, 4)):
        place = random.randrange((300 if random.random() < 0.7 else len(file)) - 8)
        number = random.choice((0, 1, 255, 2**31 - 1, 2**31, 2**63 - 1, 2**64 - 1, random.getrandbits(64)))
        width = random.choice((1, 4, 8))
        file[place : place + width] = (number % 256**width).to_bytes(width, "little")
    return bytes(file[: random.randrange(len(file))] if random.random() < 0.2 else file)


@functools.cache
def _good(factory: str) -> bytes:
    index = faiss.index_factory(8, factory, faiss.METRIC_INNER_PRODUCT)
    vectors = random_vectors(300, 8)  # more than the 256 centroids that OPQ trains
    index.train(vectors)
    index.add(vectors)
    return np.asarray(faiss.serialize_index(index)).tobytes()


if __name__ == "__main__":
    faiss.omp_set_num_threads(1)  # threads do not survive a fork
    fuzz(read_faiss_file, [])
