"""Imports of damaged and forged FAISS files of any kind and metric, with ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import faiss
import numpy as np

from ragengine.indexing.foreign_index import ForeignIndex
from ragengine.indexing.vector_sources import PendingPassages
from ragengine.retrieval.faiss_api import search_faiss
from tests.robustness.children import Case
from tests.robustness.mutated.damage import drawing
from tests.robustness.mutated.faiss_streams import stream_damages
from tests.robustness.mutated.indexes import SERVED, E, vectors

_SAMPLED, _SAMPLED_MANY = 25, 1500
"""Damages of each kind of index in the default and in the exhaustive run."""
IMPORTED = {
    **SERVED,
    "id_map": "IDMap,Flat",
    "id_map_2": "IDMap2,SQ8",
    "id_map_of_lists": "IDMap,IVF4,Flat",
    "dpr": "HNSW4",
    "nsg": "NSG8",
    "hnsw_pq": "HNSW4_PQ4x4",
    "lsh": "LSH8",
    "rq": "RQ2x4",
    "lsq": "LSQ2x4",
    "prq": "PRQ2x2x4",
    "pq_fast_scan": "PQ4x4fs",
    "ivf_rq": "IVF4,RQ2x4",
    "rabitq": "RaBitQ",
    "ivf_rabitq": "IVF4,RaBitQ",
    "refine_sq": "PQ4x4,Refine(SQ8)",
    "norm": "L2norm,Flat",
    "itq": "ITQ8,LSH",
    "pad": "Pad32,Flat",
}
# Kinds that are not searched.
_REFUSED = {"lsh", "rq", "lsq", "prq", "ivf_rq", "rabitq", "ivf_rabitq", "itq"}
_L2 = {"dpr", "lsh", "itq"}


def prepare(base: Path) -> None:
    faiss.omp_set_num_threads(1)
    for name, factory in IMPORTED.items():
        faiss.write_index(_made(name, factory), str(base / f"{name}.faiss"))


def _made(name: str, factory: str) -> faiss.Index:
    metric = faiss.METRIC_L2 if name in _L2 else faiss.METRIC_INNER_PRODUCT
    data, sample = vectors(), vectors(seed=9, count=300)
    if name == "dpr":  # an additional component gives all the same norm
        data, sample = (_augmented(array) for array in (data, sample))
    sample = np.concatenate([data, sample])
    if name == "nsg":  # needs more than a hundred
        data = sample
    made = faiss.index_factory(data.shape[1], factory, metric)
    made.train(sample)
    made.add_with_ids(data, np.arange(len(data))) if "IDMap" in factory else made.add(data)
    return made


def _augmented(array: np.ndarray) -> np.ndarray:
    squares = np.einsum("ke,ke->k", array, array)
    return np.concatenate([array, np.sqrt(squares.max() - squares)[:, None]], axis=1)


def cases(base: Path, exhaustive: bool) -> Iterator[Case]:
    for path in sorted(base.glob("*.faiss")):
        run = partial(_import, path, bytes)
        if path.stem in _REFUSED:
            yield Case(f"{path.stem}: as it was written", run, "refused", mentions=path.name)
        else:
            yield Case(f"{path.stem}: as it was written", run, "answered")
        damages = list(stream_damages(path.stat().st_size))
        most = min(_SAMPLED_MANY if exhaustive else _SAMPLED, len(damages))
        for what, damage in drawing(path.stem).sample(damages, most):
            yield Case(f"{path.stem}: {what}", partial(_import, path, damage))


def _import(whole: Path, damage: Callable[[bytes], bytes], folder: Path) -> None:
    path = folder / whole.name
    path.write_bytes(damage(whole.read_bytes()))
    check_import(path)


def check_import(path: Path) -> None:
    """Everything that an import does with a FAISS file, and a search in the result."""
    foreign = ForeignIndex(path, E)
    kept = foreign.factory()
    if foreign.keeps_vectors:
        pending = PendingPassages(None, 0, 0)  # needs no store
        blocks = list(foreign.vector_source().blocks(pending))
        assert sum(map(len, blocks)) == foreign.count
    foreign.check_agrees(vectors().astype(np.float16), np.arange(0, 60, 7))
    structure = foreign.structure()
    if kept is not None:
        search_faiss(structure, vectors(1, 20), 5)
