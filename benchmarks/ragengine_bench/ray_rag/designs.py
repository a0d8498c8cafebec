"""Who holds the index that several training processes search, and how they ask.

Each design finds the same documents: FAISS with the same settings, whose candidates are scored again.
"""

import functools
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import distributed

from ragengine.arrays import FloatArray, HalfArray, RowArray
from ragengine.errors import IndexFolderError
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.manifest import FAISS_FILE, VECTORS_FILE, IndexManifest
from ragengine.retrieval.vector_index import VectorIndex
from ragengine.storage.npy import open_vectors
from ragengine_ray.processes import RemoteObject
from ragengine_ray.shard_actors import ShardActorIndex, ShardActors
from ragengine_train.live_retriever import RagengineIndex


class Searched(Protocol):
    """The index as a training process sees it, by transformers' names."""

    def get_top_docs(self, questions: FloatArray, n_docs: int) -> tuple[RowArray, FloatArray]:
        """Rows [Q, D] of the best documents of questions [Q, E], and their vectors [Q, D, E]."""
        ...

    def get_doc_dicts(self, rows: RowArray) -> list[dict[str, Any]]:
        """Ids, titles and texts of rows [Q, D]."""
        ...


class Design(Protocol):
    """Who holds the index.  It is sent to every training process."""

    @property
    def workers(self) -> Sequence[RemoteObject]:
        """The processes that search beside those that train."""
        ...

    def join(self, rank: int, world: int, turn: int) -> Searched:
        """Called in training process ``rank`` of ``world``, in all of them at the same time.

        ``turn`` is another one whenever there are as many processes again.
        """
        ...


class WholeIndex:
    """FAISS's index in the memory of this process alone; vectors are mapped, as those of datasets are."""

    def __init__(self, path: Path) -> None:
        """It is read when it is searched for the first time."""
        self._path = path

    @functools.cached_property
    def _vectors(self) -> HalfArray:
        return open_vectors(self._path / VECTORS_FILE, np.float16, IndexFolderError)

    @functools.cached_property
    def _index(self) -> VectorIndex:
        manifest = IndexManifest.read(self._path)
        faiss_index = read_faiss(self._path / FAISS_FILE, mapped=False)
        return VectorIndex(faiss_index, self._vectors, manifest.max_norm, manifest.search)

    def get_top_docs(self, questions: FloatArray, n_docs: int) -> tuple[RowArray, FloatArray]:
        """As :meth:`Searched.get_top_docs`."""
        rows = self._index.search(questions, n_docs).rows
        return rows, np.asarray(self._vectors[rows], np.float32)


@dataclass(frozen=True)
class Mapped:
    """Each training process maps the index: the system keeps it in memory once for all."""

    index: Path
    workers: tuple[RemoteObject, ...] = ()

    def join(self, rank: int, world: int, turn: int) -> Searched:
        """Open the index."""
        return RagengineIndex(self.index, 1)


class ShardWorkers:
    """Each of ``count`` actors searches a shard; the training processes merge what these propose."""

    def __init__(self, index: Path, count: int) -> None:
        self._index, self._actors = index, ShardActors(count)
        self.workers = [RemoteObject(actor) for actor in self._actors.holders]

    def join(self, rank: int, world: int, turn: int) -> Searched:
        """Have the index divided, by the first that comes."""
        return ShardActorIndex(self._actors, self._index, 1)


class WholeWorkers:
    """Each of ``count`` actors holds the whole index, and every call asks one of them at random.

    As ``RagRayDistributedRetriever`` (transformers-research-projects, rag/distributed_ray_retriever.py).
    """

    def __init__(self, index: Path, count: int) -> None:
        self._index = index
        self.workers = [RemoteObject.start(WholeIndex, index) for _ in range(count)]

    def join(self, rank: int, world: int, turn: int) -> Searched:
        """Texts are read in the training process, as there."""
        return _AskingOne(self._index, self.workers, random.Random(rank))


class _AskingOne(RagengineIndex):
    def __init__(self, index: Path, workers: Sequence[RemoteObject], draw: random.Random) -> None:
        super().__init__(index, 1)
        self._workers, self._draw = workers, draw

    def get_top_docs(self, questions: FloatArray, n_docs: int = 5) -> tuple[RowArray, FloatArray]:
        found: tuple[RowArray, FloatArray] = self._draw.choice(self._workers).call(
            "get_top_docs", questions, n_docs
        )
        return found


@dataclass(frozen=True)
class FirstRank:
    """The first training process holds the index; it gathers all questions and scatters what it finds.

    As ``RagPyTorchDistributedRetriever`` (rag/distributed_pytorch_retriever.py), over gloo.  The processes
    find each other by files that begin with ``meeting``.
    """

    index: Path
    meeting: Path
    workers: tuple[RemoteObject, ...] = ()

    def join(self, rank: int, world: int, turn: int) -> Searched:
        """Meet the other processes."""
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        if distributed.is_initialized():
            distributed.destroy_process_group()
        distributed.init_process_group(
            "gloo", f"file://{self.meeting}-{world}-{turn}", rank=rank, world_size=world
        )
        return _Gathering(self.index, WholeIndex(self.index) if rank == 0 else None, world)


class _Gathering(RagengineIndex):
    def __init__(self, index: Path, whole: WholeIndex | None, world: int) -> None:
        super().__init__(index, 1)
        self._whole, self._world = whole, world

    def get_top_docs(self, questions: FloatArray, n_docs: int = 5) -> tuple[RowArray, FloatArray]:
        mine, (count, dimension) = torch.from_numpy(questions), questions.shape
        rows = torch.empty((count, n_docs), dtype=torch.int64)
        vectors = torch.empty((count, n_docs, dimension))
        if self._whole is None:
            distributed.gather(mine)
            distributed.scatter(rows)
            distributed.scatter(vectors)
        else:
            gathered = [torch.empty_like(mine) for _ in range(self._world)]
            distributed.gather(mine, gathered)
            found = self._whole.get_top_docs(torch.cat(gathered).numpy(), n_docs)
            for part, of_all in zip((rows, vectors), found, strict=True):
                distributed.scatter(part, list(torch.split(torch.from_numpy(of_all), count)))
        return rows.numpy(), vectors.numpy()
