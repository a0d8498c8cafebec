"""Dividing an index into shards that find together what it finds."""

import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ragengine.corpus.passage import Passage
from ragengine.errors import IndexFolderError, RagEngineError
from ragengine.indexing import partition, resources
from ragengine.indexing.inputs import check_threads
from ragengine.indexing.passage_ids import PassageIds
from ragengine.indexing.revision import OldIndex
from ragengine.indexing.writer import IndexWriter
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.manifest import FAISS_FILE, QUERIES_FILE, IndexManifest, manifest_fingerprint
from ragengine.retrieval.sharding.manifest import (
    FORMAT,
    ShardEntry,
    ShardsManifest,
    common_fingerprint,
    is_sharded,
    shard_folder,
)
from ragengine.retrieval.sharding.quantizer import empty_copy, quantizer_hash
from ragengine.retrieval.sharding.sharded_index import ShardedIndex
from ragengine.retrieval.structure import Structure
from ragengine.runtime.progress import Progress
from ragengine.storage import folders
from ragengine.storage.atomic import replaced_file
from ragengine.storage.foreign_files import checked_path
from ragengine.storage.linking import linked
from ragengine.storage.ownership import CALIBRATION, SHARDS
from ragengine.version import __version__


def shard_index(
    index: str | Path,
    shards_folder: str | Path,
    *,
    shards: int,
    force: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
) -> ShardsManifest:
    """Divide an index into shards, as ``ragengine index shard`` does.

    Passages keep their order: each shard has the next ones, as many as the others or one more.  What FAISS
    learned, its codes and the search settings stay, so that the shards find together the same documents with
    the same scores.

    Args:
        index: the index folder, which stays as it is.
        shards_folder: the folder to write: ``shards.json``, and an index folder for each shard that has
            passages.
        shards: how many shards, at most 4096.
        force: False refuses to replace shards, as the command does without ``--force``.
        threads: threads to use; all cores where None.
        progress: called with (phase, done, total), as by :func:`build_index`, for each shard in turn.

    Returns:
        What ``shards.json`` says.

    Raises:
        InputError: ``shards`` is no such number, or FAISS's structure cannot be divided (graphs, refinement,
            fast scan).
        IndexFolderError: the index is not whole or is in shards already, or the shards cannot be written.
    """
    check_threads(threads)
    partition.check_shards(shards)
    index, target = (checked_path(path, IndexFolderError) for path in (index, shards_folder))
    if is_sharded(index):
        raise IndexFolderError(f"{index} is in shards already; give an index folder.")
    with OldIndex(index) as old:
        manifest = old.manifest
        empty = empty_copy(index / FAISS_FILE)
        resources.check_room(
            target, manifest.factory, manifest.count, manifest.dimension, texts=old.passages_bytes, memory=0
        )
        with folders.replaced_folder(target, FORMAT, IndexFolderError, force=force) as folder:
            entries = list(_written(old, empty, folder, shards, threads, progress))
            structure = Structure.of(read_faiss(index / FAISS_FILE, mapped=True))
            for name in (CALIBRATION, QUERIES_FILE):
                if (index / name).exists():
                    linked(index / name, folder / name)
            whole = whole_manifest(manifest, entries, structure, quantizer_hash(empty))
            write_shards_manifest(folder, whole, target)
    return ShardsManifest.read(target)


def whole_manifest(
    manifest: IndexManifest, shards: Sequence[ShardEntry], structure: Structure, quantizer: str
) -> ShardsManifest:
    """What ``shards.json`` says of an index with this ``manifest`` that is in ``shards``."""
    nprobe = manifest.search.get("nprobe", structure.nprobe)
    return ShardsManifest(
        **{
            **{f.name: getattr(manifest, f.name) for f in dataclasses.fields(IndexManifest)},
            "files": {},
            "created_by": f"ragengine {__version__}",
        },
        shards=tuple(shards),
        structure=dataclasses.replace(structure, nprobe=nprobe),
        quantizer=quantizer,
        common_fingerprint=common_fingerprint(manifest, quantizer),
    )


def shards_text(manifest: ShardsManifest) -> str:
    """The text of ``shards.json``."""
    return json.dumps(manifest.content, indent=2, ensure_ascii=False) + "\n"


def write_shards_manifest(
    folder: Path, manifest: ShardsManifest, target: Path, *, questions: str = QUERIES_FILE
) -> None:
    """Write ``shards.json`` once the folder was opened as every reader does, and searched.

    It lists the file of the recall's ``questions``, which is there already.  Raises :class:`IndexFolderError`
    where it cannot be read back.
    """
    if manifest.tuning is not None and manifest.tuning.source == "file":
        files = {questions: folders.file_entry(folder / questions)}
        manifest = dataclasses.replace(manifest, files=files)
    draft = folder / f".{SHARDS}.writing"
    with replaced_file(folder / SHARDS, draft) as file:
        file.write(shards_text(manifest).encode("utf-8"))
        file.flush()
        try:
            # The hashes of each shard were taken when it was written, a moment ago.
            with ShardedIndex.open(folder, verify="size", file_name=draft.name) as written:
                written.warm_up()
        except RagEngineError as reason:
            raise IndexFolderError(
                f"The shards written for {target} cannot be read back, so {target} was not changed: {reason}"
            ) from reason


def _written(
    old: OldIndex, empty: object, folder: Path, shards: int, threads: int | None, progress: Progress | None
) -> Iterator[ShardEntry]:
    """Write each shard that has passages; the entries of all."""
    count, passages = old.manifest.count, old.passages()
    source = read_faiss(old.path / FAISS_FILE, mapped=True)
    for number in range(shards):
        first, end = partition.shard_bounds(number, shards, count)
        if first == end:
            yield ShardEntry(first, 0)
            continue
        name = shard_folder(number)
        mine: Iterator[Passage] = itertools.islice(passages, end - first)
        with IndexWriter.open(
            folder / name, {"command": "shard"}, threads=threads, progress=progress
        ) as writer:
            writer.write_passages(mine, PassageIds(end - first, old.path))
            writer.write_vectors(None, old.manifest.dimension, old.vectors, np.arange(first, end))
            part = partition.part_of(source, empty, first, end - first)
            writer.write_faiss(old.manifest.factory, old.manifest.seed, part)
            draft = dataclasses.replace(
                old.manifest, max_norm=0.0, recall=None, tuning=None, files={}, timings={}
            )
            writer.finish(draft, None, None)
        fingerprint = manifest_fingerprint(IndexManifest.read(folder / name))
        yield ShardEntry(first, end - first, fingerprint, name)
