"""Making one index of shards that were built apart."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ragengine.errors import IndexFolderError, PassagesError
from ragengine.indexing import partition
from ragengine.indexing.inputs import check_threads, checked_recall, read_queries
from ragengine.indexing.passage_ids import shown_ids
from ragengine.indexing.plan import IndexPlan
from ragengine.indexing.revision import DEFAULT_RECALL
from ragengine.indexing.shard import whole_manifest, write_shards_manifest
from ragengine.indexing.sharded.trained import Training
from ragengine.indexing.sharded.whole import tuned_over, write_questions
from ragengine.indexing.writer import new_manifest
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import (
    FAISS_FILE,
    PASSAGES_FILE,
    IndexManifest,
    manifest_fingerprint,
)
from ragengine.retrieval.passage_store import PassageStore
from ragengine.retrieval.sharding.manifest import (
    QUESTIONS_FILES,
    ShardEntry,
    ShardsManifest,
    is_sharded,
    shard_folder,
)
from ragengine.retrieval.sharding.quantizer import empty_copy, quantizer_hash
from ragengine.retrieval.structure import Structure
from ragengine.runtime.progress import Progress
from ragengine.storage.atomic import explained
from ragengine.storage.foreign_files import checked_path

_STORE_BLOCK = 4096
_SHOWN = 8
_PLACE = re.compile(r"[0-9]{1,4}/([1-9][0-9]{0,3})")


def gather_shards(
    out: str | Path,
    *,
    queries: str | Path | None = None,
    recall: float = DEFAULT_RECALL,
    force: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
) -> ShardsManifest:
    """Make an index of shards that were built apart, as ``ragengine index build --gather`` does.

    Every shard is checked: its hashes, that it was built from the training in ``out`` with what that learned,
    that its rows follow those of the one before, and that no id is in two.  The search is tuned over all of
    them, as :func:`build_index` tunes it.  The documents and scores are those of the index that
    :func:`build_index` makes of the same passages and vectors.

    Args:
        out: the folder with the training and the folders of all shards; ``shards.json`` is written there.
        queries: a ``.npy`` of question vectors [Q, E] to measure the recall with; passages where None.
        recall: the recall at 5 documents that an approximate index is tuned for.
        force: False refuses where the shards are gathered already.
        threads: threads to use; all cores where None.
        progress: called with (phase, done, total); phases are exact and tune.

    Returns:
        What ``shards.json`` says.

    Raises:
        InputError: ``recall`` or ``queries`` cannot be used.
        PassagesError: passages of two shards have one id.
        IndexFolderError: a shard is missing, not whole or not of this training, or ``shards.json`` cannot be
            written.
    """
    check_threads(threads)
    recall, out = checked_recall(recall), checked_path(out, IndexFolderError)
    trained = Training.read(out)
    questions = read_queries(queries, trained.dimension)
    if is_sharded(out) and not force:
        raise IndexFolderError(f"{out} is gathered already; give --force to gather it again (force=True).")
    entries, norms = _checked_shards(out, trained)
    there = [(entry, out / entry.folder) for entry in entries if entry.folder is not None]
    _check_ids([path for _, path in there])
    draft = replace(
        new_manifest(
            trained.encoder,
            trained.dimension,
            IndexPlan(trained.factory, trained.reason),
            trained.seed,
            trained.created_from,
        ),
        count=trained.count,
        max_norm=max(norms),
    )
    faiss_index = trained.read_quantizer(out)
    structure = Structure.of(faiss_index)
    paths = [path for _, path in there]
    manifest = tuned_over(draft, faiss_index, paths, questions, recall, threads, progress)
    whole = whole_manifest(manifest, entries, structure, trained.quantizer)
    listed = ShardsManifest.read(out).files if is_sharded(out) else {}
    name = next(name for name in QUESTIONS_FILES if name not in listed)
    try:
        if questions is not None and whole.tuning is not None:
            write_questions(out, questions, name)
        write_shards_manifest(out, whole, out, questions=name)
        gathered = ShardsManifest.read(out)
        for other in QUESTIONS_FILES:
            if other not in gathered.files:
                (out / other).unlink(missing_ok=True)  # the questions of the gathering before
    except OSError as reason:
        raise IndexFolderError(f"{out} cannot be written: {explained(reason)}.") from reason
    return gathered


def _checked_shards(out: Path, trained: Training) -> tuple[list[ShardEntry], list[float]]:
    """The entries of all shards, and the largest norm of the vectors of each that has passages."""
    found = {path.name: IndexManifest.read(path) for path in sorted(out.glob("shard-*")) if path.is_dir()}
    if not found:
        raise IndexFolderError(f"{out} has no shards; build them (ragengine index build --shard i/N).")
    shards = _number_of_shards(out, found)
    bounds = [trained.bounds(number, shards) for number in range(shards)]
    names = {shard_folder(number): number for number, (first, end) in enumerate(bounds) if first < end}
    if absent := [f"{number}/{shards}" for name, number in names.items() if name not in found]:
        more = len(absent) - _SHOWN
        raise IndexFolderError(
            f"{out} lacks the shards {', '.join(absent[:_SHOWN])}{f' and {more} more' if more > 0 else ''}; "
            "build them, or copy their folders here."
        )
    entries, norms = [], []
    for number, (first, end) in enumerate(bounds):
        name = shard_folder(number)
        if first == end:
            entries.append(ShardEntry(first, 0))
            continue
        manifest = found.pop(name)
        check_shard(out / name, manifest, trained, number, shards)
        entries.append(ShardEntry(first, end - first, manifest_fingerprint(manifest), name))
        norms.append(manifest.max_norm)
    if found:
        raise IndexFolderError(
            f"{out} has {', '.join(sorted(found)[:_SHOWN])}, which of {shards} shards none is; remove it."
        )
    return entries, norms


def _number_of_shards(out: Path, found: dict[str, IndexManifest]) -> int:
    """How many shards there are, as each of those that were found says."""
    said: dict[int, str] = {}
    for name, manifest in found.items():
        place = _PLACE.fullmatch(str(manifest.created_from.get("shard", "")))
        if place is None:
            raise IndexFolderError(
                f"{out / name} was not built as a shard of several; build it with "
                "ragengine index build --shard."
            )
        said.setdefault(int(place[1]), name)
    if len(said) > 1:
        (one, first), (other, second), *_ = said.items()
        raise IndexFolderError(
            f"{out / first} is one of {one} shards, {second} of {other}; build all with the same number."
        )
    shards = next(iter(said))
    partition.check_shards(shards)
    return shards


def check_shard(path: Path, manifest: IndexManifest, trained: Training, number: int, shards: int) -> None:
    """Raise :class:`IndexFolderError` unless ``path`` is that shard of this training, and whole."""
    first, end = trained.bounds(number, shards)
    ours = replace(
        manifest,
        created_from=trained.history(number, shards),
        encoder=trained.encoder,
        dimension=trained.dimension,
        factory=trained.factory,
        seed=trained.seed,
        count=end - first,
    )
    for field in ("created_from", "encoder", "dimension", "factory", "seed", "count"):
        has, wanted = getattr(manifest, field), getattr(ours, field)
        if has != wanted:
            raise IndexFolderError(
                f"{path} is not shard {number} of {shards} of the training beside it: its {field} is {has}, "
                f"{wanted} was expected; build it again."
            )
    PassageIndex.open(path, verify="sha256").close()
    if quantizer_hash(empty_copy(path / FAISS_FILE)) != trained.quantizer:
        raise IndexFolderError(
            f"{path / FAISS_FILE} was trained otherwise than the training beside it; build the shard again."
        )


def _check_ids(folders: Sequence[Path]) -> None:
    """Raise :class:`PassagesError` where an id is in two shards; it holds 8 bytes a passage."""
    hashes = np.sort(np.fromiter((hash(id) for id in _ids(folders)), np.int64))
    twice = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if not twice:
        return
    repeated = Counter(id for id in _ids(folders) if hash(id) in twice)
    if ids := [id for id, times in repeated.items() if times > 1]:
        raise PassagesError(
            f"Several passages have the id {shown_ids(ids)}; give each passage an id of its own, or none an "
            "id, and build the shards again."
        )


def _ids(folders: Sequence[Path]) -> Iterator[str]:
    for folder in folders:
        store = PassageStore(folder / PASSAGES_FILE)
        try:
            for block in store.blocks(_STORE_BLOCK):
                yield from (passage.id for passage in block)
        finally:
            store.close()
