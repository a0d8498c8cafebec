"""Every command that writes a folder, with small inputs, and checks of the result.

A scene is a folder with inputs; ``old/NAME`` is the folder that the command NAME finds at its target.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from ragengine.bundle.bundle import Bundle
from ragengine.indexing.build import build_index
from ragengine.indexing.compact import compact_index
from ragengine.indexing.import_index import import_index
from ragengine.indexing.shard import shard_index
from ragengine.indexing.sync import sync_index
from ragengine.indexing.update import add_passages, delete_passages, merge_indexes
from ragengine.indexing.upsert import upsert_passages
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.sharding.sharded_index import ShardedIndex
from tests.support.bundles import random_vectors

if TYPE_CHECKING:
    from ragengine_export.choices import Precision

COUNT = 300
E = 64  # makes the files of vectors larger than those of texts, so that limits reach them
VECTORS = random_vectors(COUNT, E)
FACTORY = "IVF4,Flat"


def _export(scene: Path, target: Path, precision: "Precision" = "fp32") -> None:
    from ragengine_export import export_checkpoint

    export_checkpoint(
        None,
        target,
        precision,
        question_encoder=scene / "question",
        context_encoder=scene / "context",
        generator=scene / "bart",
        check=False,  # writes nothing
        force=True,
    )


def _build(scene: Path, target: Path, resume: bool = False) -> None:
    queries = scene / "queries.npy"
    build_index(
        **_inputs(scene, "all"), index=target, factory=FACTORY, queries=queries, resume=resume, force=True
    )


def _resume(scene: Path, target: Path) -> None:
    _build(scene, target, resume=True)


def _add(scene: Path, target: Path) -> None:
    add_passages(target, **_inputs(scene, "more"))


def _delete(scene: Path, target: Path) -> None:
    delete_passages(target, ["p1", "p7"])


def _merge(scene: Path, target: Path) -> None:
    merge_indexes(target, scene / "second", target, force=True)


def _import(scene: Path, target: Path) -> None:
    import_index(scene / "all.jsonl", target, bundle=_bundle(scene), faiss=scene / "all.faiss", force=True)


def _sync(scene: Path, target: Path) -> None:
    sync_index(scene / "changed.jsonl", target, bundle=_bundle(scene), force=True)


def _upsert(scene: Path, target: Path) -> None:
    upsert_passages(target, **_inputs(scene, "some"))


def _compact(scene: Path, target: Path) -> None:
    compact_index(target, factory="IVF2,Flat")


def _merge_shards(scene: Path, target: Path) -> None:
    merge_indexes(target, scene / "second-shards", target, force=True)


COMMANDS: dict[str, Callable[[Path, Path], None]] = {
    "export": _export,
    "build": _build,
    "resume": _resume,
    "add": _add,
    "delete": _delete,
    "merge": _merge,
    "import": _import,
    "sync": _sync,
    "upsert": _upsert,
    "compact": _compact,
    # The targets of these are indexes in shards.
    "shards-add": _add,
    "shards-delete": _delete,
    "shards-merge": _merge_shards,
    "shards-compact": _compact,
}


def make_scene(scene: Path) -> Path:
    """Write the inputs and the existing targets."""
    from tests.support.models import save_bart, save_dpr

    save_dpr(scene / "question", hidden_size=E)
    save_dpr(scene / "context", context=True, seed=1, hidden_size=E)
    save_bart(scene / "bart")
    _export(scene, scene / "old" / "export", "fp16")
    parts = {"few": range(50), "more": range(200, 300), "all": range(COUNT)}
    parts |= {"some": range(40, 70), "changed": range(5, 52)}
    for name, rows in parts.items():
        lines = [json.dumps({"id": f"p{row}", "title": f"t{row}", "text": f"text {row}"}) for row in rows]
        (scene / f"{name}.jsonl").write_text("\n".join(lines))
        np.save(scene / f"{name}.npy", VECTORS[list(rows)])
    np.save(scene / "queries.npy", random_vectors(20, E, seed=5))
    index = faiss.IndexFlatIP(E)
    index.add(VECTORS)
    faiss.write_index(index, str(scene / "all.faiss"))
    build_index(**_inputs(scene, "few"), index=scene / "old" / "build", factory=FACTORY)
    build_index(**_inputs(scene, "more"), index=scene / "second")
    for name in ("resume", "add", "delete", "merge", "import", "sync", "upsert", "compact"):
        shutil.copytree(scene / "old" / "build", scene / "old" / name)
    for name in ("shards-add", "shards-delete", "shards-merge", "shards-compact"):
        shard_index(scene / "old" / "build", scene / "old" / name, shards=3)
    same = scene / "same-quantizer"  # with other ids
    shutil.copytree(scene / "old" / "build", same)
    add_passages(same, **_inputs(scene, "more"))
    delete_passages(same, [f"p{row}" for row in range(50)])
    shard_index(same, scene / "second-shards", shards=2)
    return scene


def content(target: Path) -> dict[str, str]:
    """Open a bundle or an index and verify it; returns the hashes of its files."""
    if (target / "shards.json").exists():
        with ShardedIndex.open(target, verify="sha256") as shards:
            shards.verify()
            return {
                str(number): str(entry.fingerprint) for number, entry in enumerate(shards.manifest.shards)
            }
    if (target / "index.faiss").exists():
        with PassageIndex.open(target, verify="sha256") as opened:
            opened.verify()
            return {name: entry.sha256 for name, entry in opened.manifest.files.items()}
    files = Bundle.open(target, verify="sha256").manifest.files
    return {name: entry.sha256 for name, entry in files.items()}


def leftovers(target: Path) -> list[str]:
    """The hidden names beside ``target``."""
    return sorted(path.name for path in target.parent.iterdir() if path.name.startswith("."))


def _bundle(scene: Path) -> Path:
    return scene / "old" / "export"


def _inputs(scene: Path, name: str) -> dict[str, Any]:
    files = {"passages": scene / f"{name}.jsonl", "embeddings": scene / f"{name}.npy"}
    return {**files, "bundle": _bundle(scene)}
