"""`ShardedIndex`: an index whose passages lie in several shards, searched as if it were one."""

import contextvars
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import numpy as np

from ragengine.arrays import FloatArray, RowArray
from ragengine.confidence.corpus import Corpus, fingerprint
from ragengine.confidence.model import ConfidenceModel
from ragengine.corpus.passage import Passage
from ragengine.errors import ClosedError, IndexFolderError, InputError, ShardError
from ragengine.retrieval.candidates import Candidates, Plan, SearchFacts, SearchResult, find
from ragengine.retrieval.faiss_api import import_faiss
from ragengine.retrieval.gpu.placement import Placement
from ragengine.retrieval.gpu.searcher import Device
from ragengine.retrieval.manifest import FAISS_FILE
from ragengine.retrieval.passage_filter import FIELDS_SHOWN, Filter, PassageFilter, nothing_matches
from ragengine.retrieval.searched_index import SearchedIndex
from ragengine.retrieval.sharding.breaker import Health
from ragengine.retrieval.sharding.manifest import ShardEntry, ShardsManifest
from ragengine.retrieval.sharding.partial_shard import PartialShard
from ragengine.retrieval.sharding.quantizer import empty_copy, quantizer_hash
from ragengine.retrieval.sharding.shard import LocalShard, Shard
from ragengine.runtime.lifecycle import awaited_at_exit
from ragengine.runtime.progress import Progress
from ragengine.storage.folders import Verify, check_files
from ragengine.storage.foreign_files import checked_path
from ragengine.storage.ownership import SHARDS

T = TypeVar("T")
_SAMPLE_REST: Final = 10.0  # seconds between two tries to sample passages that a shard did not give
Connect: TypeAlias = Callable[[ShardEntry, int, SearchFacts], Shard]
"""Makes the shard that servers at the addresses of an entry search, of its number and the whole's facts."""


class ShardedIndex(SearchedIndex):
    """An index in shards.  The same documents and scores are found as in one index of all passages."""

    manifest: ShardsManifest

    def __init__(
        self,
        path: Path,
        manifest: ShardsManifest,
        shards: Sequence[Shard],
        calibration: ConfidenceModel | None = None,
        *,
        workers: int | None = None,
    ) -> None:
        """``shards`` are those of the manifest's entries that have passages, in their order.

        ``workers`` of them are asked at once: where None, as many as there are, and of shards on this machine
        at most one a core.  They are closed with this.  Raises :class:`IndexFolderError` where one is not the
        shard that the manifest names.
        """
        entries = [entry for entry in manifest.shards if entry.count]
        super().__init__(path, manifest, _fingerprint(manifest), calibration)
        self._shards: tuple[Shard, ...] = tuple(shards)
        self._first_rows = [entry.first_row for entry in entries]
        self._closed = False
        self._sample_after, self._not_sampled = 0.0, ""
        for shard, entry in zip(self._shards, entries, strict=True):
            if (shard.count, shard.fingerprint) != (entry.count, entry.fingerprint):
                raise IndexFolderError(
                    f"The {shard.name} has {shard.count} passages and the fingerprint "
                    f"{shard.fingerprint[:12]}, {path} says {entry.count} and {str(entry.fingerprint)[:12]}; "
                    "copy the shard again, or gather the shards again."
                )
        self._facts = _facts(manifest)
        local = all(isinstance(shard, LocalShard) for shard in self._shards)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = workers or (min(len(self._shards), cores) if local else len(self._shards))
        threads = max(1, cores // workers)
        self._pool = ThreadPoolExecutor(
            workers,
            thread_name_prefix="ragengine-shard",
            initializer=lambda: import_faiss().omp_set_num_threads(threads),
        )
        self.device: Device = "cpu"
        self.placement = Placement("cpu", "each shard is searched where it is")

    @classmethod
    @awaited_at_exit
    def open(
        cls,
        path: str | Path,
        *,
        verify: Verify = "sha256",
        device: Device = "cpu",
        connect: Connect | None = None,
        file_name: str = SHARDS,
    ) -> "ShardedIndex":
        """Open a folder with ``shards.json`` and its shards.

        Args:
            path: the folder.
            verify: as for :meth:`PassageIndex.open`, for each shard that is a folder.
            device: where those shards are searched.
            connect: for a shard whose folder is not there.
            file_name: of its ``shards.json``, where that is a draft.

        Raises:
            IndexFolderError: a shard is not whole, not there, or not the one that ``shards.json`` names.
            DeviceError: ``device`` is ``cuda``, which cannot be used.
        """
        folder = checked_path(path, IndexFolderError)
        manifest = ShardsManifest.read(folder, file_name)
        shards: list[Shard] = []
        try:
            for number, entry in enumerate(manifest.shards):
                if not entry.count:
                    continue
                if entry.folder is not None and ((folder / entry.folder).is_dir() or not entry.addresses):
                    shards.append(LocalShard.open(folder / entry.folder, verify=verify, device=device))
                elif connect is not None:
                    shards.append(connect(entry, number, _facts(manifest)))
                else:
                    raise IndexFolderError(
                        f"Shard {number} of {folder} is searched by {', '.join(entry.addresses)}, which are "
                        "asked only where the caller says how; give remote=RemoteOptions() or "
                        "--remote-shards, or copy its folder here."
                    )
            index = cls(folder, manifest, shards, ConfidenceModel.read(folder))
        except BaseException:
            for shard in shards:
                shard.close()
            raise
        index.device = device
        return index

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards that have passages, in the order of their rows."""
        return self._shards

    @property
    def shard_health(self) -> dict[str, Health]:
        """By name the shards that a search may go on without: whether they are asked now."""
        return {shard.name: shard.health for shard in self._shards if isinstance(shard, PartialShard)}

    @awaited_at_exit
    def search(
        self,
        vectors: FloatArray,
        n_docs: int,
        *,
        nprobe: int | None = None,
        rerank_width: int | None = None,
        filter: Filter | None = None,
    ) -> SearchResult:
        """As :meth:`SearchedIndex.search`: what one index of all passages finds."""
        wanted = PassageFilter.of(filter)
        matching = None if wanted is None else self._matching(wanted)
        if nprobe is None and self._facts.structure.lists is not None and wanted is None:
            nprobe = self._facts.structure.nprobe

        def propose(questions: FloatArray, plan: Plan) -> Candidates:
            found = self._ask(lambda shard: shard.candidates(questions, plan, wanted))
            return Candidates.joined(found, self._first_rows, len(questions))

        return find(
            propose,
            self._facts,
            vectors,
            n_docs,
            nprobe=nprobe,
            rerank_width=rerank_width,
            matching=matching,
        )

    def passages(self, rows: Iterable[int]) -> list[Passage]:
        """As :meth:`SearchedIndex.passages`."""
        wanted = np.asarray(list(rows), np.int64)
        places = self._by_shard(wanted)

        def ask(number: int) -> list[Passage]:
            return self._shards[number].passages((wanted[places[number]] - self._first_rows[number]).tolist())

        found: dict[int, Passage] = {}
        for number, passages in zip(places, self._each(list(places), ask), strict=True):
            found |= zip(wanted[places[number]].tolist(), passages, strict=True)
        return [found[row] for row in wanted.tolist()]

    def vectors(self, rows: RowArray) -> FloatArray:
        """As :meth:`SearchedIndex.vectors`."""
        wanted = np.asarray(rows, np.int64)
        places = self._by_shard(wanted)

        def ask(number: int) -> FloatArray:
            return self._shards[number].vectors(wanted[places[number]] - self._first_rows[number])

        vectors = np.empty((len(wanted), self.dimension), np.float32)
        for number, found in zip(places, self._each(list(places), ask), strict=True):
            vectors[places[number]] = found
        return vectors

    def rows_of(self, ids: Iterable[str]) -> dict[str, list[int]]:
        """As :meth:`SearchedIndex.rows_of`."""
        wanted = list(ids)
        found: dict[str, list[int]] = {}
        for first, rows in zip(self._first_rows, self._ask(lambda s: s.rows_of(wanted)), strict=True):
            for id, ours in rows.items():
                found.setdefault(id, []).extend(row + first for row in ours)
        return found

    def matching_rows(self, filter: Filter | None) -> RowArray:
        """As :meth:`SearchedIndex.matching_rows`."""
        wanted = PassageFilter.of(filter)
        if wanted is None:
            return np.arange(self.count)
        self._matching(wanted)
        rows = self._ask(lambda shard: shard.matching_rows(wanted))
        return np.concatenate([ours + first for ours, first in zip(rows, self._first_rows, strict=True)])

    def best_placement(self) -> Placement:
        """As it is: each shard decides for itself."""
        return self.placement

    @awaited_at_exit
    def verify(self, progress: Progress | None = None) -> None:
        """Verify each shard that is a folder, as :meth:`PassageIndex.verify` does, and what FAISS learned.

        It has to be the same in all of them, or their candidates cannot be compared.
        """
        check_files(self.path, self.manifest.files, IndexFolderError)
        for shard in self._shards:
            if isinstance(shard, LocalShard):
                shard.index.verify(progress)
                _check_quantizer(shard.index.path / FAISS_FILE, self.manifest)

    def close(self) -> None:
        """Close the shards once running searches are done; may be called again.  In a fork: nothing."""
        if self._in_fork:
            return
        self._closed = True
        self._pool.shutdown()
        for shard in self._shards:
            shard.close()

    def _sampled(self) -> Corpus:
        # Questions wait for each other here, and shards that do not answer this may answer them in time.
        if time.monotonic() < self._sample_after:
            raise ShardError(self._not_sampled)
        try:
            return super()._sampled()
        except ShardError as reason:
            self._sample_after, self._not_sampled = time.monotonic() + _SAMPLE_REST, str(reason)
            raise

    def _matching(self, wanted: PassageFilter) -> int:
        """How many passages match; raises :class:`InputError` where none does."""
        count = sum(self._ask(lambda shard: shard.matching_count(wanted)))
        if not count:
            named = self._ask(lambda shard: shard.metadata_fields(FIELDS_SHOWN + 1))
            raise nothing_matches(wanted, sorted({name for names in named for name in names}))
        return count

    def _ask(self, call: Callable[[Shard], T]) -> list[T]:
        """What each shard answers, asked at once; raises the first error."""
        return self._each(range(len(self._shards)), lambda number: call(self._shards[number]))

    def _each(self, numbers: Sequence[int], call: Callable[[int], T]) -> list[T]:
        """What ``call`` returns for each of the shards ``numbers``, at once; raises the first error."""
        self._check_open()
        if len(numbers) == 1:
            return [call(numbers[0])]
        contexts = [contextvars.copy_context() for _ in numbers]  # they hold the current search
        return list(self._pool.map(lambda context, number: context.run(call, number), contexts, numbers))

    def _check_open(self) -> None:
        self._check_process()
        if self._closed:
            raise ClosedError(f"The index {self.path} is closed; open it again.")

    def _by_shard(self, rows: RowArray) -> dict[int, RowArray]:
        """The shards that have ``rows``, and where in ``rows`` theirs are."""
        self._check_open()
        if len(rows) and not (rows.min() >= 0 and rows.max() < self.count):
            raise IndexFolderError(f"{self.path} has {self.count} passages, row {rows.max()} was asked for.")
        owners = np.searchsorted(self._first_rows, rows, side="right") - 1
        return {int(number): np.flatnonzero(owners == number) for number in np.unique(owners)}


def _check_quantizer(path: Path, manifest: ShardsManifest) -> None:
    """Raise :class:`IndexFolderError` unless FAISS learned what the manifest says, in a shard's index."""
    try:
        found = quantizer_hash(empty_copy(path))
    except InputError as reason:
        raise IndexFolderError(f"{path} is not that of a shard: {reason}") from reason
    if found != manifest.quantizer:
        raise IndexFolderError(
            f"{path} was trained otherwise than {SHARDS} says: its centroids, rotation and codebooks have "
            f"the hash {found[:12]} instead of {manifest.quantizer[:12]}; build or divide the index again."
        )


def _facts(manifest: ShardsManifest) -> SearchFacts:
    """How the whole is searched."""
    return SearchFacts(
        manifest.structure, manifest.count, manifest.dimension, manifest.max_norm,
        manifest.search.get("rerank_width", 1),
    )  # fmt: skip


def _fingerprint(manifest: ShardsManifest) -> str:
    """What identifies the content of the index and how it is searched."""
    return fingerprint(
        {
            "shards": [shard.fingerprint for shard in manifest.shards],
            "search": manifest.search,
            "encoder": manifest.encoder.fingerprint,
        }
    )
