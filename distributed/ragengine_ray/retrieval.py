"""Actors that search an index for the workers of a training, as those of Hugging Face's ray-rag did."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from transformers.models.rag.retrieval_rag import Index

from ragengine.retrieval.manifest import IndexManifest
from ragengine_train.live_retriever import RagengineIndex


class _Searcher:
    """Holds an index, which it opens when it is there."""

    def __init__(self) -> None:
        self._index: RagengineIndex | None = None
        self._opened: tuple[str, str] | None = None

    def open(self, path: str, n_docs: int) -> None:
        """Open an index, unless it is open."""
        manifest = IndexManifest.read(Path(path))
        opened = path, repr(manifest)
        if self._opened != opened:
            self._index, self._opened = RagengineIndex(path, n_docs), opened

    def top_docs(
        self, vectors: NDArray[np.float32], n_docs: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows [Q, D] and their vectors [Q, D, E]."""
        assert self._index is not None
        return self._index.get_top_docs(vectors, n_docs)

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors [..., E] of rows [...]."""
        assert self._index is not None
        return self._index.vectors(rows)

    def doc_dicts(self, rows: NDArray[np.int64]) -> list[dict[str, Any]]:
        """The passages of rows [Q, D]."""
        assert self._index is not None
        return self._index.get_doc_dicts(rows)


def start_searchers(count: int) -> list[Any]:
    """Actors for :class:`ActorIndex`; one that dies is started again."""
    actor = ray.remote(max_restarts=-1, max_task_retries=-1)(_Searcher)
    return [actor.remote() for _ in range(count)]


class ActorIndex(Index):  # type: ignore[misc]  # transformers is untyped
    """An index that actors search; each worker asks the one that is its own."""

    def __init__(self, searchers: Sequence[Any], worker: int, path: Path, n_docs: int) -> None:
        self._searcher = searchers[worker % len(searchers)]
        self._path, self._n_docs = str(path.resolve()), n_docs
        ray.get(self._searcher.open.remote(self._path, n_docs))

    def get_top_docs(
        self, question_hidden_states: NDArray[np.float32], n_docs: int = 5
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows [Q, D] and stored vectors [Q, D, E], as those of :class:`RagengineIndex`."""
        found: tuple[NDArray[np.int64], NDArray[np.float32]] = self._asked(
            "top_docs", np.asarray(question_hidden_states, np.float32), n_docs
        )
        return found

    def get_doc_dicts(self, doc_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Ids, titles and texts of rows [Q, D]."""
        found: list[dict[str, Any]] = self._asked("doc_dicts", doc_ids)
        return found

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The stored vectors [..., E] of rows [...]."""
        found: NDArray[np.float32] = self._asked("vectors", rows)
        return found

    def is_initialized(self) -> bool:
        """An index is open from the start."""
        return True

    def init_index(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """The actors live on until the end of the run."""

    def _asked(self, method: str, *arguments: Any) -> Any:
        """An actor that was started again has no index open: opening comes first, and costs nothing else."""
        self._searcher.open.remote(self._path, self._n_docs)
        return ray.get(getattr(self._searcher, method).remote(*arguments))
