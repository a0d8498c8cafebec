"""What every index of passages does, whether it lies in one folder or in shards."""

import abc
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from ragengine.arrays import FloatArray, RowArray
from ragengine.bundle.bundle import Bundle
from ragengine.confidence.corpus import NEIGHBOURS, SAMPLED, Corpus, median_nearness, spread_rows
from ragengine.confidence.model import ConfidenceModel
from ragengine.corpus.passage import Passage
from ragengine.errors import IndexFolderError
from ragengine.results import Document
from ragengine.retrieval.candidates import SearchResult
from ragengine.retrieval.gpu.placement import Placement
from ragengine.retrieval.gpu.searcher import Device
from ragengine.retrieval.manifest import IndexManifest
from ragengine.retrieval.passage_filter import Filter
from ragengine.runtime.lifecycle import OneProcess
from ragengine.runtime.progress import Progress


class SearchedIndex(OneProcess, abc.ABC):
    """An opened index.  Searching and reading passages is safe from many threads."""

    device: Device
    """Where it was asked to be searched."""
    placement: Placement
    """Where candidates are searched, and why."""

    def __init__(
        self, path: Path, manifest: IndexManifest, fingerprint: str, calibration: ConfidenceModel | None
    ) -> None:
        super().__init__()
        self.path = path
        self.manifest = manifest
        self._fingerprint = fingerprint
        self._calibration = calibration
        self._corpus: Corpus | None = None
        self._sampling = threading.Lock()

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"index {self.path}"

    @property
    def count(self) -> int:
        """The number of passages, N."""
        return self.manifest.count

    @property
    def dimension(self) -> int:
        """The number of components of a vector, E."""
        return self.manifest.dimension

    @property
    def corpus(self) -> Corpus:
        """What flags of answers need to know of the passages, with the index's calibration.

        Some passages are searched for when it is first asked for.
        """
        with self._sampling:
            if self._corpus is None:
                self._corpus = self._sampled()
            return self._corpus

    def _sampled(self) -> Corpus:
        rows = np.array(spread_rows(self.count, SAMPLED))
        sample = self.vectors(rows)
        asked = slice(None, None, max(1, len(rows) // NEIGHBOURS))
        found = self.search(sample[asked], min(2, self.count))
        others = np.where(found.rows == rows[asked, None], -np.inf, found.scores)
        nearest = others.max(axis=1)
        nearness = median_nearness(sample, sample[asked], nearest, self.count)
        return Corpus(self._fingerprint, sample, nearness, self._calibration)

    def check_belongs_to(self, bundle: Bundle) -> None:
        """Raise :class:`IndexFolderError` unless the vectors were made by the encoder of ``bundle``."""
        ours, theirs = self.manifest.encoder, bundle.index_encoder
        if ours.kind == "question_encoder":  # vectors came as a file: only that side is known
            theirs = bundle.manifest.question_encoder
        if ours.fingerprint != theirs.fingerprint:
            raise IndexFolderError(
                f"The index {self.path} was built with the encoder {ours.name} ({ours.fingerprint[:12]}), "
                f"the bundle {bundle.path} has {theirs.name} ({theirs.fingerprint[:12]}); "
                "build the index with this bundle."
            )
        wanted = bundle.manifest.question_encoder
        if self.dimension != wanted.dimension:
            raise IndexFolderError(
                f"The index {self.path} (encoder {ours.name}, {ours.fingerprint[:12]}) has vectors of "
                f"{self.dimension} numbers, the question encoder {wanted.name} ({wanted.fingerprint[:12]}) "
                f"of {bundle.path} gives {wanted.dimension}; build the index with this bundle."
            )

    @abc.abstractmethod
    def search(
        self,
        vectors: FloatArray,
        n_docs: int,
        *,
        nprobe: int | None = None,
        rerank_width: int | None = None,
        filter: Filter | None = None,
    ) -> SearchResult:
        """Find the ``n_docs`` best passages for question vectors, float32 [Q, E].

        Scores are inner products with the stored vectors, descending, ties by row.  ``nprobe`` and
        ``rerank_width`` are the manifest's search settings where not given, and raise :class:`InputError`
        as in :meth:`VectorIndex.search`, which says what is found with a ``filter``.  A filter that no
        passage matches raises :class:`InputError`.
        """

    @abc.abstractmethod
    def passages(self, rows: Iterable[int]) -> list[Passage]:
        """The passages of ``rows``, in that order, repeated rows too."""

    @abc.abstractmethod
    def vectors(self, rows: RowArray) -> FloatArray:
        """The stored vectors of ``rows``, float32 [K, E]."""

    @abc.abstractmethod
    def rows_of(self, ids: Iterable[str]) -> dict[str, list[int]]:
        """The rows of each of ``ids`` that a passage has, ascending.  Reads the ids of every passage."""

    @abc.abstractmethod
    def matching_rows(self, filter: Filter | None) -> RowArray:
        """The rows that match a filter, ascending, int64; all where it is None.

        Raises :class:`InputError` where no passage matches.
        """

    @abc.abstractmethod
    def best_placement(self) -> Placement:
        """Where ``device="auto"`` would let this index be searched now; nothing is copied."""

    @abc.abstractmethod
    def verify(self, progress: Progress | None = None) -> None:
        """Compare the parts of the index with each other, reading all of it.

        Opening has checked the hashes; this finds what hashes cannot show, an index that was wrong when it
        was written.  Raises :class:`IndexFolderError` for the first error.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Close the files; may be called again.  Running searches finish.  In a fork it does nothing."""

    def search_documents(
        self,
        vectors: FloatArray,
        n_docs: int,
        *,
        nprobe: int | None = None,
        rerank_width: int | None = None,
        filter: Filter | None = None,
    ) -> list[list[Document]]:
        """As :meth:`search`, with the passages: documents best first, fewer where fewer were found."""
        if isinstance(n_docs, int | np.integer):  # else the search says so
            n_docs = min(n_docs, max(1, self.count))
        found = self.search(vectors, n_docs, nprobe=nprobe, rerank_width=rerank_width, filter=filter)
        documents = []
        for rows, scores in zip(found.rows, found.scores, strict=True):
            pairs = zip(self.passages(rows[rows >= 0]), scores.tolist(), strict=False)
            documents.append(
                [
                    Document(title=p.title, text=p.text, id=p.id, score=score, metadata=p.metadata)
                    for p, score in pairs
                ]
            )
        return documents

    def warm_up(self) -> None:
        """Search once: it loads what a search needs, and fails now if the index cannot be searched."""
        question = self.vectors(np.zeros(1, np.int64))
        self.search_documents(question, 1)
        _ = self.corpus

    def missing_ids(self, ids: Iterable[str]) -> list[str]:
        """Those of ``ids`` that no passage has, in their order.  Reads the ids of every passage."""
        self._check_process()
        wanted = list(ids)
        found = self.rows_of(wanted) if wanted else {}
        return [id for id in wanted if id not in found]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
