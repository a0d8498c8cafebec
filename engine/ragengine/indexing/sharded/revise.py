"""A changed index in shards: those in which something changes are written again, the others are linked.

The new folder takes the place of the old one when all of it is there, as that of one index does.  The search
is tuned over all shards, so that settings, documents and scores are those of one index with this change.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ragengine.arrays import RowArray
from ragengine.corpus.passage import Passage
from ragengine.errors import IndexFolderError
from ragengine.indexing import partition
from ragengine.indexing.passage_ids import PassageIds
from ragengine.indexing.revision import (
    OldIndex,
    Revision,
    Rewritten,
    check_room,
    kept_passages,
    write_revised,
)
from ragengine.indexing.shard import whole_manifest, write_shards_manifest
from ragengine.indexing.sharded.old_shards import OldShards
from ragengine.indexing.sharded.whole import tuned_over, write_questions
from ragengine.indexing.writer import IndexWriter
from ragengine.retrieval.manifest import FAISS_FILE, IndexManifest, manifest_fingerprint
from ragengine.retrieval.sharding.manifest import FORMAT, ShardEntry, ShardsManifest, shard_folder
from ragengine.retrieval.sharding.quantizer import empty_copy, quantizer_hash
from ragengine.retrieval.structure import Structure
from ragengine.runtime.progress import Progress
from ragengine.storage import folders
from ragengine.storage.linking import linked
from ragengine.storage.ownership import CALIBRATION, MANIFEST, QUANTIZER, TRAINING


@dataclass(frozen=True)
class _Change:
    """What changes in one shard.

    old       the shard
    revision  what changes, by its own rows
    kept      those of its rows that stay, ascending
    first     the row of the whole that the first of them becomes
    """

    old: OldIndex
    revision: Revision
    kept: RowArray
    first: int

    @property
    def nothing(self) -> bool:
        """Whether the shard stays as it is."""
        revision = self.revision
        return not (len(revision.gone) or revision.renewed or revision.added)

    def passage(self, row: int) -> Passage:
        """The passage that becomes ``row`` of the whole."""
        old = int(self.kept[row - self.first])
        return self.revision.renewed.get(old) or self.old.fetch([old])[0]

    def with_ids(self, moved: Mapping[int, str]) -> "_Change":
        """Give passages of these rows of the whole other ids, which are numbers."""
        renewed = {
            int(self.kept[row - self.first]): replace(self.passage(row), id=id, numbered=True)
            for row, id in moved.items()
            if self.first <= row < self.first + len(self.kept)
        }
        revision = replace(self.revision, renewed={**self.revision.renewed, **renewed})
        return replace(self, revision=revision)


def revise_shards(
    old: OldShards,
    index: Path,
    revision: Revision,
    threads: int | None,
    progress: Progress | None,
    *,
    force: bool = True,
) -> ShardsManifest:
    """Write ``index``: ``old`` with a revision, which leaves at least one passage.

    What is added comes into the last shard that has passages.  Raises as
    :func:`~ragengine.indexing.revision.revise`.
    """
    partition.check_shards(len(old.manifest.shards))
    changes = _by_shard(old, revision)
    rewritten = [change.old for change in changes if not change.nothing]
    check_room(
        Rewritten(
            old.path,
            old.manifest,
            sum(part.manifest.count for part in rewritten),
            sum(part.passages_bytes for part in rewritten),
        ),
        index,
        revision.added,
    )
    with folders.replaced_folder(index, FORMAT, IndexFolderError, force=force) as folder:
        parts = _written(old, changes, revision, folder, threads, progress)
        max_norm = 0.0 if len(revision.gone) else old.manifest.max_norm  # of what is gone, perhaps
        draft = replace(old.manifest, created_from=revision.created_from, max_norm=max_norm)
        for name in (TRAINING, QUANTIZER):
            if (old.path / name).exists():
                linked(old.path / name, folder / name)
        finish_shards(old, draft, parts, folder, index, old.target, threads, progress)
    return ShardsManifest.read(index)


def finish_shards(
    old: OldShards,
    draft: ShardsManifest,
    parts: Sequence[IndexManifest | None],
    folder: Path,
    index: Path,
    recall: float,
    threads: int | None,
    progress: Progress | None,
) -> None:
    """Tune the search of the shards in ``folder`` until ``recall`` is reached, and write ``shards.json``.

    Args:
        old: what they grew out of, which gives the questions to measure with, and the calibration.
        draft: what is known of the whole; ``max_norm`` is that of vectors beside those in ``parts``.
        parts: the manifest of each shard that had passages; None where none are left.
        folder: where the shards are.
        index: what messages call it.
        recall: the recall to reach.
        threads: threads to use.
        progress: called with the phases exact and tune.
    """
    entries = list(_entries(old.manifest, parts))
    paths = [folder / str(entry.folder) for entry in entries if entry.count]
    max_norm = max(draft.max_norm, *(part.max_norm for part in parts if part is not None))
    draft = replace(draft, count=sum(entry.count for entry in entries), max_norm=max_norm)
    questions, empty = old.questions(), empty_copy(paths[0] / FAISS_FILE)
    structure, quantizer = Structure.of(empty), quantizer_hash(empty)
    if questions is not None:
        write_questions(folder, questions)
    manifest = tuned_over(draft, empty, paths, questions, recall, threads, progress)
    if (old.path / CALIBRATION).exists():
        linked(old.path / CALIBRATION, folder / CALIBRATION)
    write_shards_manifest(folder, whole_manifest(manifest, entries, structure, quantizer), index)


def _by_shard(old: OldShards, revision: Revision) -> list[_Change]:
    """What changes in each shard that has passages."""
    changes: list[_Change] = []
    first = 0
    for part, entry in zip(old.parts, old.entries, strict=True):
        end = entry.first_row + entry.count
        gone = revision.gone[(revision.gone >= entry.first_row) & (revision.gone < end)] - entry.first_row
        renewed = {
            row - entry.first_row: passage
            for row, passage in revision.renewed.items()
            if entry.first_row <= row < end
        }
        kept = np.delete(np.arange(entry.count), gone)
        ours = replace(revision, gone=gone, renewed=renewed, added=None)
        changes.append(_Change(part, ours, kept, first))
        first += len(kept)
    changes[-1] = replace(changes[-1], revision=replace(changes[-1].revision, added=revision.added))
    return changes


def _written(
    old: OldShards,
    changes: list[_Change],
    revision: Revision,
    folder: Path,
    threads: int | None,
    progress: Progress | None,
) -> list[IndexManifest | None]:
    """Write or link each shard into ``folder``; its manifest, None where no passage is left."""
    names = [shard_folder(number) for number, entry in enumerate(old.manifest.shards) if entry.count]
    *others, last = changes
    count = last.first + len(last.kept)
    fixed = count if revision.fixed is None else revision.fixed
    written: dict[str, IndexManifest | None] = {}
    moved: Mapping[int, str] = {}
    if revision.added is not None or fixed < count:  # else no id is taken that was free
        before = others if not last.nothing else changes
        ids = PassageIds(
            fixed,
            old.path,
            before=itertools.chain.from_iterable(kept_passages(c.old, c.revision) for c in before),
            fetch=lambda row: next(c for c in reversed(before) if row >= c.first).passage(row),
        )
        if last.nothing:
            ids.settle(None)
        else:
            written[names[-1]] = _rewritten(last, ids, folder / names[-1], old.path, threads, progress)
        moved = ids.moved
    for name, change in zip(names, changes, strict=True):
        if name in written:
            continue
        change = change.with_ids(moved)
        if change.nothing:
            _link(change.old, folder / name)
            written[name] = change.old.manifest
        else:
            ids = PassageIds(len(change.kept), old.path)
            written[name] = _rewritten(change, ids, folder / name, old.path, threads, progress)
    return [written[name] for name in names]


def _rewritten(
    change: _Change, ids: PassageIds, path: Path, name: Path, threads: int | None, progress: Progress | None
) -> IndexManifest | None:
    """Write a changed shard; None where no passage is left."""
    revision = change.revision
    if not len(change.kept) and revision.added is None:
        return None
    with IndexWriter.open(path, {"command": revision.command}, threads=threads, progress=progress) as writer:
        draft = write_revised(writer, change.old, revision, ids, name)
        writer.finish(dataclasses.replace(draft, files={}, timings={}), None, None)
    return IndexManifest.read(path)


def _link(old: OldIndex, path: Path) -> None:
    """Let ``path`` be a shard that stays as it is; a link to a folder elsewhere stays one."""
    if old.path.is_symlink():
        path.symlink_to(old.path.resolve())
        return
    path.mkdir()
    for name in (MANIFEST, CALIBRATION, *old.manifest.files):
        if (old.path / name).exists():
            linked(old.path / name, path / name)


def _entries(old: ShardsManifest, parts: Sequence[IndexManifest | None]) -> Iterator[ShardEntry]:
    """What ``shards.json`` says of each shard, those without passages too."""
    manifests, first = iter(parts), 0
    for number, entry in enumerate(old.shards):
        manifest = next(manifests) if entry.count else None
        if manifest is None:
            yield ShardEntry(first, 0)
            continue
        fingerprint = manifest_fingerprint(manifest)
        yield ShardEntry(first, manifest.count, fingerprint, shard_folder(number), entry.addresses)
        first += manifest.count
