"""Making, training and filling FAISS indexes, so that the same input and threads give the same bytes."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray, HalfArray, RowArray
from ragengine.errors import IndexFolderError, InputError
from ragengine.indexing.factory import parse_factory
from ragengine.indexing.opq import train_opq
from ragengine.indexing.plan import ROWS_AT_ONCE, TRANSFORM_VECTORS, training_count
from ragengine.retrieval.faiss_api import extract_ivf, faiss_reason, faiss_threads, import_faiss, is_graph
from ragengine.retrieval.recall import sample_rows
from ragengine.runtime.progress import Report
from ragengine.storage.atomic import replaced_file

_CHECKPOINT_SECONDS = 300.0


def empty_faiss_index(factory: str, dimension: int) -> Any:
    """A FAISS index for inner products; raises :class:`InputError` for a ``factory`` that makes none."""
    parse_factory(factory, dimension)
    faiss = import_faiss()
    try:
        return faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except (RuntimeError, MemoryError) as reason:
        raise InputError(
            f"The factory {factory!r} is not one that faiss {faiss.__version__} makes for inner products of "
            f"{dimension} dimensions ({faiss_reason(reason)}); try Flat or IVF256,Flat."
        ) from reason


def train(
    faiss_index: Any,
    vectors: HalfArray,
    factory: str,
    seed: int,
    threads: int | None,
    report: Report,
    *,
    sampled: bool = False,
) -> None:
    """Train on a sample of ``vectors`` [N, E], drawn with ``seed``; a graph on one thread, as :func:`add`.

    Where they are ``sampled`` already, it is all of them.
    """
    report(0, 2)
    with _factory_errors(factory, len(vectors)):
        if not faiss_index.is_trained:
            count = len(vectors)
            rows = np.arange(count) if sampled else training_rows(faiss_index, count, seed)
            sample = _Sample(vectors, rows)
            with faiss_threads(1 if _has_graph(factory) else threads):
                _train_parts(faiss_index, sample, report)
    report(2, 2)


def add(
    faiss_index: Any,
    vectors: HalfArray,
    factory: str,
    threads: int | None,
    report: Report,
    save: Callable[[], object] | None = None,
) -> None:
    """Add the rows of ``vectors`` [N, E] that a trained index does not hold yet, in blocks.

    A graph is filled on one thread: with several, their timing decides what is linked.  ``save`` is called
    every few minutes between blocks, except for a graph: faiss adds other links to a graph that was read
    from a file than to one that was never written.
    """
    _check_can_grow(faiss_index)
    count = len(vectors)
    graph = _has_graph(factory) or is_graph(faiss_index)
    saved = time.monotonic()
    with _factory_errors(factory, count), faiss_threads(1 if graph else threads):
        for start in range(faiss_index.ntotal, count, ROWS_AT_ONCE):
            faiss_index.add(np.asarray(vectors[start : start + ROWS_AT_ONCE], np.float32))
            report(faiss_index.ntotal, count)
            if save is not None and not graph and time.monotonic() - saved >= _CHECKPOINT_SECONDS:
                save()
                saved = time.monotonic()


def remove(faiss_index: Any, rows: RowArray) -> bool:
    """Remove ``rows`` (ascending) and number the others 0, 1, ... again; False where faiss cannot."""
    faiss = import_faiss()
    inverted_lists = extract_ivf(faiss_index)
    if inverted_lists is not None:
        if isinstance(faiss.downcast_index(faiss_index), faiss.IndexRefine):
            return False
        lists = inverted_lists.invlists
        if not isinstance(faiss.downcast_InvertedLists(lists), faiss.ArrayInvertedLists):
            return False
        faiss_index.remove_ids(rows)
        for number in range(lists.nlist):
            size = lists.list_size(number)
            if size:
                ids = faiss.rev_swig_ptr(lists.get_ids(number), size)  # a view: faiss's own memory
                ids -= np.searchsorted(rows, ids)
        return True
    if isinstance(faiss.downcast_index(faiss_index), faiss.IndexFlat):
        faiss_index.remove_ids(rows)  # closes the gaps itself
        return True
    return False


def write_faiss(faiss_index: Any, path: Path) -> None:
    """Write a FAISS index; ``path`` holds what it held before until the new file is whole.

    It is written through a Python file: FAISS's own does not report that a full disk cut off the last bytes.
    """
    faiss = import_faiss()
    try:
        with replaced_file(path) as file:
            faiss.write_index(faiss_index, faiss.PyCallbackIOWriter(file.write))
    except RuntimeError as reason:
        raise IndexFolderError(f"{path} cannot be written: {faiss_reason(reason)}.") from reason


def _check_can_grow(faiss_index: Any) -> None:
    """Refuse an NSG graph, whatever its manifest says: FAISS cannot add to it, and may hang."""
    faiss = import_faiss()
    index = faiss.downcast_index(faiss_index)
    if isinstance(index, faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    if isinstance(index, faiss.IndexNSG):
        raise IndexFolderError("The FAISS index is an NSG graph, which FAISS cannot add to; build another.")


@dataclass(frozen=True)
class _Sample:
    """The ``rows`` of ``vectors`` that an index is trained on, changed by ``transforms`` one after another.

    They are in memory only where they are wanted, and only as the index wants them: of 655,360 vectors of 768
    components that a rotation halves, 1 GB instead of 3.
    """

    vectors: HalfArray
    rows: RowArray
    transforms: tuple[Any, ...] = ()

    def read(self, most: int | None = None) -> FloatArray:
        """The sample, float32 [rows, E], or ``most`` rows of it, evenly spaced."""
        rows = self.rows
        if most is not None and most < len(rows):
            rows = rows[np.arange(most) * len(rows) // most]
        dimension = self.transforms[-1].d_out if self.transforms else self.vectors.shape[1]
        sample = np.empty((len(rows), dimension), np.float32)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            block = np.asarray(self.vectors[rows[start : start + ROWS_AT_ONCE]], np.float32)
            for transform in self.transforms:
                block = transform.apply(block)
            sample[start : start + ROWS_AT_ONCE] = block
        return sample


def _train_parts(faiss_index: Any, sample: _Sample, report: Report) -> None:
    """Train an index and those inside it, each on what it will be given."""
    faiss = import_faiss()
    index = faiss.downcast_index(faiss_index)
    if isinstance(index, faiss.IndexRefine):
        _train_parts(index.base_index, sample, report)
        if not index.refine_index.is_trained:
            index.refine_index.train(sample.read())
    elif isinstance(index, faiss.IndexPreTransform):
        _train_parts(index.index, _train_transforms(index, sample), report)
    else:
        report(1, 2)
        _spare_polysemous_codes(index)
        index.train(sample.read())
    index.is_trained = True


def _train_transforms(faiss_index: Any, sample: _Sample) -> _Sample:
    """Train the transforms in front of an index in turn, and return the sample as they change it."""
    faiss = import_faiss()
    for number in range(faiss_index.chain.size()):
        transform = faiss.downcast_VectorTransform(faiss_index.chain.at(number))
        if isinstance(transform, faiss.OPQMatrix):
            train_opq(transform, sample.read(TRANSFORM_VECTORS))
        elif not transform.is_trained:
            transform.train(sample.read(TRANSFORM_VECTORS))
        sample = replace(sample, transforms=(*sample.transforms, transform))
    return sample


def _spare_polysemous_codes(faiss_index: Any) -> None:
    """Switch off the training of polysemous codes, which a PQ of a factory does by default.

    It only reorders the centroids for a filter that ragengine does not use, and its simulated annealing takes
    longer than everything else.
    """
    faiss = import_faiss()
    index = faiss.downcast_index(faiss_index)
    if isinstance(index, faiss.IndexIVFPQ | faiss.IndexPQ):
        index.do_polysemous_training = False


def training_rows(faiss_index: Any, count: int, seed: int) -> RowArray:
    """The rows of N = ``count`` to train on, ascending, drawn with ``seed``.

    Those of the recall test are left out where there are enough others.
    """
    wanted = training_count(faiss_index, count)
    if wanted == count:
        return np.arange(count)
    # Not the stream that draws the questions of the recall test.
    drawn = np.random.default_rng([seed, 1]).choice(count, wanted, replace=False)
    return np.setdiff1d(drawn, sample_rows(count, seed))


def _has_graph(factory: str) -> bool:
    return "HNSW" in factory


@contextlib.contextmanager
def _factory_errors(factory: str, count: int) -> Iterator[None]:
    """Turn what faiss refuses while it trains or adds into an :class:`InputError`."""
    try:
        yield
    except RuntimeError as reason:
        raise InputError(
            f"The factory {factory!r} cannot index these {count} vectors ({faiss_reason(reason)}); "
            "choose a smaller one, or Flat."
        ) from reason
