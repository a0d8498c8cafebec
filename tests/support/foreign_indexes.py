"""Passages and FAISS files as other programs write them, and what an index imported from them finds."""

import csv
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from ragengine.errors import RagEngineError
from ragengine.indexing.import_index import import_index
from ragengine.retrieval.index import PassageIndex
from tests.support.bundles import Array, random_vectors

DIMENSION, COUNT, N_DOCS = 16, 600, 5
# Stored vectors are fp16: a component is off by up to 2^-11 of itself.  With components of the size 1, a
# score of 16 products is then off by up to 16 · 2^-11 · max|q|·max|d| ~ 0.1; typically it is 0.002.
FP16_SCORE = 0.02


def half_vectors() -> Array:
    """Embeddings that fp16 holds exactly, of different norms."""
    vectors = random_vectors(COUNT, DIMENSION) * np.linspace(0.5, 1.5, COUNT)[:, None]
    return vectors.astype(np.float16).astype(np.float32)


def write_tsv(path: Path, ids: list[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["id", "text", "title"])
        writer.writerows([id, f"text of {id}", f"title of {id}"] for id in ids)
    return path


def passage_ids(count: int) -> list[str]:
    return [str(number) for number in range(1, count + 1)]


def write_faiss(path: Path, index: Any, vectors: Array) -> Path:
    if not index.is_trained:
        index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(path))
    return path


def found(index: Path, questions: Array, n_docs: int = N_DOCS) -> tuple[list[list[str]], Array]:
    with PassageIndex.open(index) as opened:
        opened.verify()
        result = opened.search(questions, n_docs)
        return [[p.id for p in opened.passages(rows)] for rows in result.rows], result.scores


def refused(tmp_path: Path, bundle: Path, path: Path, message: str, **options: Any) -> None:
    """The import is refused with ``message``, and leaves nothing behind."""
    if not (tmp_path / "passages.tsv").exists():
        write_tsv(tmp_path / "passages.tsv", passage_ids(COUNT))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RagEngineError, match=message):
        import_index(tmp_path / "passages.tsv", tmp_path / "index", bundle=bundle, faiss=path, **options)
    assert sorted(tmp_path.iterdir()) == before
