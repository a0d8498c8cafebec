"""The index of a run's passages; several processes encode their part of them each."""

from pathlib import Path

import numpy as np

from ragengine.bundle.bundle import Bundle
from ragengine.indexing.build import build_index
from ragengine.retrieval.encoder import TextEncoder
from ragengine_train.data import TrainingPassages
from ragengine_train.processes import count, first, rank, together, worker_threads

_ROWS_AT_ONCE = 4096


def index_corpus(corpus: TrainingPassages, passages: str, bundle: Path, index: Path) -> None:
    """Build the index of a passages file with the passage encoder of a bundle.

    Several processes encode their part each, into one file beside the bundle, each its rows.

    Args:
        corpus: what the file ``passages`` holds.
        passages: the file.
        bundle: whose encoder makes the vectors.
        index: the folder to write.
    """
    if count() == 1:
        build_index(passages, index, bundle=bundle, force=True)
        return
    target = bundle.with_name("vectors.npy")
    dimension = together(lambda: Bundle.open(bundle, verify="size").index_encoder.dimension)
    shape = (corpus.indexed, dimension)
    first(lambda: np.lib.format.open_memmap(target, "w+", np.float32, shape).flush())
    together(lambda: _write_rows(corpus, bundle, target))
    first(lambda: _build(passages, index, bundle, target))


def _build(passages: str, index: Path, bundle: Path, vectors: Path) -> None:
    build_index(passages, index, bundle=bundle, embeddings=vectors, force=True)
    vectors.unlink()


def _write_rows(corpus: TrainingPassages, bundle: Path, target: Path) -> None:
    opened = Bundle.open(bundle, verify="size")
    spec = opened.manifest.passage_encoder
    assert spec is not None
    encoder = TextEncoder.load(opened, spec, device="auto", threads=worker_threads())
    vectors = np.lib.format.open_memmap(target, "r+")
    start, end = (corpus.indexed * number // count() for number in (rank(), rank() + 1))
    for row in range(start, end, _ROWS_AT_ONCE):
        passages = corpus.passages[row : min(row + _ROWS_AT_ONCE, end)]
        texts = [(passage.title, passage.text) for passage in passages]
        vectors[row : row + len(texts)] = encoder.encode_by_length(texts)
    vectors.flush()
