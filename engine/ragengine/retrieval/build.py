"""Building an index: passages in, a folder of texts, vectors and a FAISS index out."""

import dataclasses
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ragengine import folders
from ragengine.bundle import Bundle
from ragengine.errors import IndexFolderError, InputError, PassagesError
from ragengine.retrieval.arrow import has_embeddings, read_dataset_embeddings
from ragengine.retrieval.encoder import TextEncoder
from ragengine.retrieval.index import (
    FAISS_FILE,
    FORMAT,
    FORMAT_VERSION,
    PASSAGES_FILE,
    VECTORS_FILE,
    IndexEncoder,
    IndexManifest,
)
from ragengine.retrieval.passages import Passage, read_passages
from ragengine.retrieval.recall import RecallTest
from ragengine.retrieval.store import PassageStore, write_passages
from ragengine.retrieval.vectors import (
    FP16_MAX,
    FloatArray,
    HalfArray,
    VectorIndex,
    faiss_reason,
    import_faiss,
    open_vectors,
)
from ragengine.sessions import Device

Progress: TypeAlias = Callable[[int, int | None], None]
VectorBlocks: TypeAlias = Callable[[PassageStore, Progress], Iterator[FloatArray]]
"""Gives the vectors of all passages in file order, as blocks of float32 [rows, E]."""

DEFAULT_FACTORY = "Flat"
_RERANK_WIDTH = 100
_TRAINING_VECTORS = 131072
_SEED = 0
_ROWS_AT_ONCE = 16384
# Passages sorted by length together: enough for little padding, few enough for any memory.
_SORTED_TOGETHER = 4096
_REPORT_EVERY = 1000


def build_index(
    passages: str | Path,
    index: str | Path,
    *,
    bundle: str | Path | Bundle,
    embeddings: str | Path | None = None,
    factory: str | None = None,
    recall: float = 0.95,
    device: Device = "auto",
    threads: int | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> IndexManifest:
    """Build the index folder ``index`` from ``passages`` and return its manifest.

    The vectors are ``embeddings`` (a ``.npy`` of float32 [passages, E], in file order) where given, else the
    column ``embeddings`` of a datasets folder, else d(z) of the bundle's passage encoder, computed on
    ``device`` with ``threads`` threads in batches of ``batch_size``.

    ``factory`` is any FAISS factory string that takes inner products, ``Flat`` (exact) by default.  For an
    approximate one ``nprobe`` is raised until ``recall`` is reached; where it is not, the best index is
    kept and the returned ``manifest.recall`` is below ``recall``.

    ``progress(done, total)`` counts passages: first those read (``total`` is None), then their vectors.

    A folder ``index`` that is there is replaced when the new one is whole, and only if it is an index.
    Raises :class:`PassagesError` (passages, embeddings), :class:`InputError` (factory, recall, batch size),
    :class:`BundleError`, :class:`IndexFolderError` (cannot be written), :class:`DependencyError`.
    """
    if not 0 < recall <= 1:
        raise InputError(f"recall is {recall}; it must be above 0 and at most 1.")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    passages = Path(passages)
    factory = DEFAULT_FACTORY if factory is None else factory
    report: Progress = progress or (lambda done, total: None)
    dimension = bundle.index_encoder.dimension
    faiss_index = _empty_faiss_index(factory, dimension)  # a typing error costs no hours
    source, vector_blocks = _choose_vectors(passages, embeddings, bundle, device, threads, batch_size)
    with folders.replaced_folder(Path(index), FORMAT, IndexFolderError) as folder:
        write_passages(folder / PASSAGES_FILE, _counted(read_passages(passages), report))
        store = PassageStore(folder / PASSAGES_FILE)
        try:
            if store.count == 0:
                raise PassagesError(f"{passages} has no passages; an index needs at least one.")
            blocks = vector_blocks(store, report)
            max_norm = _write_vectors(folder / VECTORS_FILE, blocks, (store.count, dimension), source, report)
        finally:
            store.close()
        vectors = open_vectors(folder / VECTORS_FILE, np.float16, IndexFolderError)
        _fill(faiss_index, vectors, factory)
        search, measured = _tuned(faiss_index, vectors, max_norm, recall)
        try:
            import_faiss().write_index(faiss_index, str(folder / FAISS_FILE))
        except RuntimeError as reason:
            raise IndexFolderError(
                f"{folder / FAISS_FILE} cannot be written: {faiss_reason(reason)}"
            ) from reason
        manifest = IndexManifest(
            dimension=dimension,
            metric="inner_product",
            count=len(vectors),
            factory=factory,
            search=search,
            recall=measured,
            max_norm=max_norm,
            encoder=_index_encoder(bundle),
            created_by=f"ragengine {_version()}",
            created_from={"passages": passages.name, "vectors": source},
            files={},
        )
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, **dataclasses.asdict(manifest)}
        folders.write_manifest(folder, content)
    return IndexManifest.read(index)


def _choose_vectors(
    passages: Path,
    embeddings: str | Path | None,
    bundle: Bundle,
    device: Device,
    threads: int | None,
    batch_size: int,
) -> tuple[str, VectorBlocks]:
    """Where the vectors come from, by name, and how to get them; opened before anything is written."""
    if embeddings is not None:
        vectors = open_vectors(Path(embeddings), np.float32, PassagesError)
        starts = range(0, len(vectors), _ROWS_AT_ONCE)
        return f"file {Path(embeddings).name}", lambda store, report: (
            vectors[start : start + _ROWS_AT_ONCE] for start in starts
        )
    if passages.is_dir() and has_embeddings(passages):
        source = f"column 'embeddings' of {passages.name}"
        return source, lambda store, report: read_dataset_embeddings(passages)
    spec = bundle.manifest.passage_encoder
    if spec is None:
        raise PassagesError(
            f"The bundle {bundle.path} has no passage encoder and no embeddings are given; export it with "
            "--context-encoder, or give --embeddings FILE.npy."
        )
    encoder = TextEncoder.load(bundle, spec, device=device, threads=threads)
    return f"passage encoder {spec.name}", lambda store, report: _encoded(encoder, store, batch_size, report)


def _encoded(
    encoder: TextEncoder, store: PassageStore, batch_size: int, report: Progress
) -> Iterator[FloatArray]:
    """d(z) of every passage.  Batches hold passages of similar length, so that little is padded."""
    done = 0
    for block in store.blocks(_SORTED_TOGETHER):
        texts = encoder.tokenizer.encode([(passage.title, passage.text) for passage in block])
        by_length = sorted(range(len(texts)), key=lambda row: len(texts[row].ids))
        vectors = np.empty((len(texts), encoder.dimension), np.float32)
        for start in range(0, len(texts), batch_size):
            rows = by_length[start : start + batch_size]
            vectors[rows] = encoder.encode_tokens([texts[row] for row in rows])
            report(done + start + len(rows), store.count)
        done += len(texts)
        yield vectors


def _write_vectors(
    path: Path, blocks: Iterable[FloatArray], shape: tuple[int, int], source: str, report: Progress
) -> float:
    """Write blocks of vectors as fp16 ``shape`` = [N, E]; the largest Euclidean norm of what was stored."""
    count, dimension = shape
    stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    row = 0
    max_norm = 0.0
    for block in blocks:
        if block.shape[1] != dimension:
            raise PassagesError(
                f"The {source} has vectors of {block.shape[1]} numbers, the bundle's encoder gives "
                f"{dimension}; use the embeddings of this encoder."
            )
        if row + len(block) > count:
            raise _wrong_count(source, "more", count)
        with np.errstate(over="ignore"):
            half = block.astype(np.float16)
        unfit = np.flatnonzero(~np.isfinite(half).all(axis=1))
        if len(unfit):
            raise PassagesError(
                f"The {source}: the vector of row {row + unfit[0]} has a component that is NaN or larger "
                f"than {FP16_MAX:.0f}, the largest an index stores (fp16)."
            )
        stored[row : row + len(half)] = half
        max_norm = max(max_norm, float(np.linalg.norm(half.astype(np.float64), axis=1).max(initial=0.0)))
        row += len(half)
        report(row, count)
    if row < count:
        raise _wrong_count(source, f"only {row}", count)
    stored.flush()
    return max_norm


def _wrong_count(source: str, found: str, count: int) -> PassagesError:
    return PassagesError(
        f"The {source} has {found} vectors for {count} passages; give one vector a passage, in file order."
    )


def _empty_faiss_index(factory: str, dimension: int) -> Any:
    faiss = import_faiss()
    try:
        faiss_index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as reason:
        raise InputError(
            f"The factory {factory!r} is not one that faiss {faiss.__version__} makes for inner products of "
            f"{dimension} dimensions ({faiss_reason(reason)}); try Flat or IVF256,Flat."
        ) from reason
    inverted_lists = faiss.try_extract_index_ivf(faiss_index)
    if inverted_lists is not None and inverted_lists.nlist < 1:
        raise InputError(f"The factory {factory!r} has no inverted lists; it needs at least IVF1.")
    return faiss_index


def _fill(faiss_index: Any, vectors: HalfArray, factory: str) -> None:
    """Train a FAISS index on a sample of the stored vectors and add all of them."""
    try:
        if not faiss_index.is_trained:
            faiss_index.train(np.asarray(vectors[_training_rows(len(vectors))], np.float32))
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            faiss_index.add(np.asarray(vectors[start : start + _ROWS_AT_ONCE], np.float32))
    except RuntimeError as reason:
        raise InputError(
            f"The factory {factory!r} cannot index these {len(vectors)} vectors ({faiss_reason(reason)}); "
            "choose a smaller one, or Flat."
        ) from reason


def _training_rows(count: int) -> Any:
    if count <= _TRAINING_VECTORS:
        return slice(None)
    return np.sort(np.random.default_rng(_SEED).choice(count, _TRAINING_VECTORS, replace=False))


def _tuned(
    faiss_index: Any, vectors: HalfArray, max_norm: float, recall: float
) -> tuple[dict[str, int], float]:
    """Search settings that reach ``recall``, or the best there are, and the recall measured with them."""
    faiss = import_faiss()
    if isinstance(faiss_index, faiss.IndexFlat):
        return {}, 1.0
    settings = {"rerank_width": _RERANK_WIDTH}
    searcher = VectorIndex(faiss_index, vectors, max_norm, settings)
    test = RecallTest.sample(vectors)
    inverted_lists = faiss.try_extract_index_ivf(faiss_index)
    if inverted_lists is None:
        return settings, test.measure(searcher)
    nlist = inverted_lists.nlist
    for nprobe in [*(2**i for i in range(nlist.bit_length()) if 2**i < nlist), nlist]:
        searcher.set_parameter("nprobe", nprobe)
        measured = test.measure(searcher)
        if measured >= recall:
            break
    return {**settings, "nprobe": nprobe}, measured


def _index_encoder(bundle: Bundle) -> IndexEncoder:
    encoder = bundle.index_encoder
    has_passage_encoder = bundle.manifest.passage_encoder is not None
    return IndexEncoder(
        encoder.name, encoder.fingerprint, "passage_encoder" if has_passage_encoder else "question_encoder"
    )


def _counted(passages: Iterator[Passage], report: Progress) -> Iterator[Passage]:
    for number, passage in enumerate(passages, start=1):
        if number % _REPORT_EVERY == 0:
            report(number, None)
        yield passage


def _version() -> str:
    try:
        return importlib.metadata.version("ragengine")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "(not installed)"
