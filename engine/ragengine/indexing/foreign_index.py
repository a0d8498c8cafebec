"""FAISS files of other programs: their vectors, and whether their structure can be kept."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray, RowArray
from ragengine.errors import InputError, PassagesError
from ragengine.indexing.inputs import shown_name
from ragengine.indexing.plan import ROWS_AT_ONCE
from ragengine.indexing.training import empty_faiss_index
from ragengine.indexing.vector_sources import VectorSource
from ragengine.retrieval.faiss_api import faiss_reason, import_faiss
from ragengine.retrieval.faiss_reader import read_faiss

# norm² + auxiliary² of DPR's vectors differ by less, through fp32 rounding; other constructions by far more.
_PHI_ROUNDING = 1e-3


class ForeignIndex:
    """A FAISS file whose row i is passage i, with vectors of ``dimension`` = E numbers.

    DPR's HNSW files have E + 1 numbers a vector (:attr:`has_auxiliary`), since HNSW then searched by L2
    distance only.  The additional component is √(φ - |d(z)|²), where φ is the largest |d(z)|²: so the vector
    nearest to (q(x), 0) has the largest inner product with q(x).
    """

    def __init__(self, path: Path, dimension: int) -> None:
        """Read ``path`` into memory.  Raises :class:`PassagesError` for what does not fit."""
        self.path = path
        self.dimension = dimension
        self._opened = read_faiss(path, mapped=False)
        self.faiss_index = self._without_id_map()
        faiss = import_faiss()
        self.count: int = self.faiss_index.ntotal
        self.inner_product: bool = self.faiss_index.metric_type == faiss.METRIC_INNER_PRODUCT
        self.has_auxiliary: bool = (
            self.faiss_index.metric_type == faiss.METRIC_L2 and self.faiss_index.d == dimension + 1
        )
        if self.faiss_index.d != dimension and not self.has_auxiliary:
            raise PassagesError(
                f"{path} has vectors of {self.faiss_index.d} numbers, the bundle's encoder gives {dimension} "
                f"(with DPR's auxiliary dimension and L2 distance {dimension + 1}); use the bundle of the "
                "encoder that made the file."
            )
        self._check_list_ids()

    @property
    def keeps_vectors(self) -> bool:
        """Whether the file has the vectors themselves, or 4 to 16 bits of every component."""
        return _keeps_vectors(self.faiss_index)

    def factory(self) -> str | None:
        """The factory string of a structure that can be kept; None for one that is to be built again.

        A structure is kept if it searches by inner product and has lists, codes or a graph.
        """
        faiss = import_faiss()
        index = faiss.downcast_index(self.faiss_index)
        if not self.inner_product or isinstance(index, faiss.IndexFlat):
            return None
        try:
            factory = _factory_of(index)
            empty_faiss_index(factory, self.dimension)
        except (NotImplementedError, AssertionError, KeyError, InputError):
            return None  # there is no factory that makes such an index
        return factory

    def vector_source(self) -> VectorSource:
        """The vectors in the file; raises :class:`PassagesError` where it has only codes of them."""
        if not self.keeps_vectors:
            raise PassagesError(
                f"{self.path} ({type(self.faiss_index).__name__}) keeps codes instead of vectors, and "
                "doc_scores need the vectors; give them as --embeddings FILE.npy, or as the column "
                "'embeddings' of the datasets folder."
            )
        return VectorSource(
            f"FAISS file {shown_name(self.path)}", lambda pending: self._blocks(pending.done), self.count
        )

    def structure(self) -> Any:
        """The FAISS index to keep, without the direct map that reading vectors from its lists made."""
        inverted_lists = import_faiss().try_extract_index_ivf(self.faiss_index)
        if inverted_lists is not None:
            inverted_lists.set_direct_map_type(import_faiss().DirectMap.NoMap)
        return self.faiss_index

    def check_agrees(self, vectors: Any, rows: RowArray) -> None:
        """Compare ``vectors`` [N, E] with those of the file at ``rows``, to notice a file of another corpus.

        Raises :class:`PassagesError` where they differ by more than quantisation explains.
        """
        if not self.keeps_vectors or not len(rows):
            return
        given = np.asarray(vectors[rows], np.float32)
        theirs = self._reconstructed(rows)[:, : self.dimension]
        differing = np.flatnonzero(
            np.linalg.norm(given - theirs, axis=1) > 0.05 * np.linalg.norm(given, axis=1) + 1e-3
        )
        if len(differing):
            raise PassagesError(
                f"Row {rows[differing[0]]} of {self.path} differs from the embedding of passage "
                f"{rows[differing[0]]}; give passages, embeddings and FAISS file of one corpus in one order."
            )

    def _blocks(self, first: int) -> Iterator[FloatArray]:
        phi: float | None = None
        for start in range(first, self.count, ROWS_AT_ONCE):
            block = self._reconstructed(np.arange(start, min(start + ROWS_AT_ONCE, self.count)))
            if self.has_auxiliary:
                phi = self._check_phi(block, start, phi)
            yield block[:, : self.dimension]

    def _reconstructed(self, rows: RowArray) -> FloatArray:
        faiss = import_faiss()
        index = faiss.downcast_index(self.faiss_index)
        if isinstance(index, faiss.IndexRefine):
            index = index.refine_index
        inverted_lists = faiss.try_extract_index_ivf(index)
        if inverted_lists is not None and inverted_lists.direct_map.type == faiss.DirectMap.NoMap:
            inverted_lists.make_direct_map()
        try:
            vectors: FloatArray = index.reconstruct_batch(rows)
        except RuntimeError as reason:
            raise PassagesError(
                f"The vectors of {self.path} cannot be read: {faiss_reason(reason)}; copy or write it again."
            ) from reason
        return vectors

    def _check_phi(self, block: FloatArray, start: int, phi: float | None) -> float:
        """Check that all vectors have one norm with their auxiliary component: |d(z)|² + aux² = φ."""
        squares = np.einsum("ke,ke->k", block, block, dtype=np.float64)
        phi = float(squares[0]) if phi is None else phi
        wrong = np.flatnonzero(np.abs(squares - phi) > _PHI_ROUNDING * phi)
        if len(wrong) and _is_flat(self.faiss_index):  # codes round the auxiliary component, too
            raise PassagesError(
                f"{self.path} has {self.dimension + 1} numbers a vector, but the last is not DPR's auxiliary "
                f"dimension: row {start + wrong[0]} has the squared norm {squares[wrong[0]]:.6g}, others "
                f"{phi:.6g}; use the bundle of the encoder that made the file."
            )
        return phi

    def _without_id_map(self) -> Any:
        """The index inside an ``IDMap`` whose ids are 0, 1, ..., else the index itself."""
        faiss = import_faiss()
        index = faiss.downcast_index(self._opened)
        if not isinstance(index, faiss.IndexIDMap):
            return index
        if not np.array_equal(faiss.vector_to_array(index.id_map), np.arange(index.ntotal)):
            raise PassagesError(
                f"{self.path} has vector ids other than 0, 1, ... (IDMap), so their passages are not known; "
                "write its inner index, and the passages in its order."
            )
        return faiss.downcast_index(index.index)

    def _check_list_ids(self) -> None:
        """Check that inverted lists hold each of the rows 0, 1, ... once."""
        faiss = import_faiss()
        inverted_lists = faiss.try_extract_index_ivf(self.faiss_index)
        if inverted_lists is None:
            return
        lists = inverted_lists.invlists
        if lists.compute_ntotal() != self.count:  # before so much is allocated
            raise PassagesError(
                f"{self.path} has {lists.compute_ntotal()} vectors in its lists and "
                f"{self.count} in its header; write it again."
            )
        seen = np.zeros(self.count, bool)
        for number in range(lists.nlist):
            size = lists.list_size(number)
            if not size:
                continue
            ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
            if ids.min() < 0 or ids.max() >= self.count:
                break
            seen[ids] = True
        if not seen.all():
            raise PassagesError(
                f"{self.path} has vector ids other than 0 to {self.count - 1} in its lists, so their "
                "passages are not known; write it again without custom ids."
            )


def _factory_of(index: Any) -> str:
    """The factory string that makes such an index."""
    faiss = import_faiss()
    from faiss.contrib.factory_tools import reverse_index_factory

    if isinstance(index, faiss.IndexPreTransform) and index.chain.size() == 1:
        transform = faiss.downcast_VectorTransform(index.chain.at(0))
        inner = faiss.downcast_index(index.index)
        if type(transform) is faiss.LinearTransform and hasattr(inner, "pq"):
            # What an OPQMatrix is read back as: the number of its parts is that of the PQ behind it.
            return f"OPQ{inner.pq.M}_{transform.d_out},{reverse_index_factory(inner)}"
    return str(reverse_index_factory(index))


def _keeps_vectors(faiss_index: Any) -> bool:
    faiss = import_faiss()
    index = faiss.downcast_index(faiss_index)
    if isinstance(index, faiss.IndexRefine):
        return _keeps_vectors(index.refine_index)
    if isinstance(index, faiss.IndexHNSW | faiss.IndexNSG):
        return _keeps_vectors(index.storage)
    kinds = faiss.IndexFlat | faiss.IndexIVFFlat | faiss.IndexScalarQuantizer | faiss.IndexIVFScalarQuantizer
    return isinstance(index, kinds)


def _is_flat(faiss_index: Any) -> bool:
    faiss = import_faiss()
    index = faiss.downcast_index(faiss_index)
    storage = faiss.downcast_index(index.storage) if isinstance(index, faiss.IndexHNSW) else index
    return isinstance(storage, faiss.IndexFlat | faiss.IndexIVFFlat)
