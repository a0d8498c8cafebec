"""An index built on a Ray cluster is the one of a local build, whatever dies on the way (`make test-ray`)."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine.errors import BundleError, IndexFolderError, InputError, PassagesError, RagEngineError
from ragengine.indexing.build import build_index
from ragengine.indexing.shard import shard_index
from ragengine.indexing.sharded.build_shard import build_shard
from ragengine.indexing.sharded.gather import gather_shards
from ragengine.indexing.sharded.train import train_quantizer
from ragengine.indexing.verify import verify_index
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import IndexManifest
from ragengine.retrieval.sharding.manifest import ShardsManifest
from tests.support.bundles import WORDS, E, add_passage_encoder, random_vectors, write_bundle

pytestmark = pytest.mark.ray

LETTERS = "abcdefghijklmnopqrstuvwxyz"
COUNT = 400
SHARDS = 4
ENCODER = b"MapWorker(MapBatches(PartEncoder))"
SETTINGS: dict[str, Any] = {"factory": "IVF4,Flat", "seed": 3, "threads": 1}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle, passages in three formats, and their index of a local build, `local`."""
    folder = tmp_path_factory.mktemp("world")
    write_bundle(folder / "bundle", E)
    add_passage_encoder(folder / "bundle", random_vectors(len(WORDS)))
    write_passages(folder)
    build_index(inputs(folder), folder / "local", bundle=folder / "bundle", **SETTINGS)
    return folder


def write_passages(folder: Path) -> None:
    """Rows 0 to 229 without ids, with metadata; 230 to 329 with ids; two documents of several passages."""
    texts = [" ".join(LETTERS[i % 26] for i in range(row, row + 1 + row % 9)) for row in range(330)]
    lines = [
        json.dumps({"title": "ab c", "text": text, "n": row % 3}) for row, text in enumerate(texts[:230])
    ]
    (folder / "a.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    table = [f"id{row}\tt\t{text}\n" for row, text in enumerate(texts[230:])]
    (folder / "b.tsv").write_text("id\ttitle\ttext\n" + "".join(table), "utf-8")
    (folder / "c").mkdir()
    for name, words in (("x.txt", 3500), ("y.md", 3500)):
        text = " ".join(LETTERS[word * word % 26] for word in range(words))
        (folder / "c" / name).write_text(text, "utf-8")


def inputs(folder: Path) -> list[Path]:
    return [folder / "a.jsonl", folder / "b.tsv", folder / "c"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine."""
    import ray

    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=200 << 20)
    yield
    ray.shutdown()


def build(world: Path, name: str, **options: Any) -> IndexManifest:
    from ragengine_ray import build

    return build(
        inputs(world), world / name, bundle=world / "bundle", **{"part_passages": 32, **SETTINGS, **options}
    )


def assert_same_index(one: Path, two: Path) -> None:
    """Each file has the same bytes, and the manifests differ in their timings alone."""
    first, second = IndexManifest.read(one), IndexManifest.read(two)
    assert first.files == second.files
    assert dataclasses.replace(first, timings={}) == dataclasses.replace(second, timings={})
    for name in first.files:
        assert (one / name).read_bytes() == (two / name).read_bytes()


def parts(world: Path, name: str) -> dict[str, int]:
    """The finished parts of a build that was killed, and when each was written."""
    folders = sorted((world / f".{name}.parts").glob("part-*"))
    return {folder.name: (folder / "vectors.npy").stat().st_mtime_ns for folder in folders}


def test_the_bytes_of_a_local_build(world: Path, cluster: None) -> None:
    reported: list[tuple[str, int, int | None]] = []
    manifest = build(world, "same", progress=lambda *step: reported.append(step))
    assert manifest.count == COUNT
    assert_same_index(world / "same", world / "local")
    vectors = [(done, total) for phase, done, total in reported if phase == "vectors"]
    assert vectors[0] == (0, COUNT)
    assert (COUNT, COUNT) in vectors
    assert not (world / ".same.parts").exists()


@pytest.fixture(scope="module")
def apart(world: Path) -> Path:
    """The same passages in shards that local jobs have built."""
    out = world / "apart"
    common: dict[str, Any] = {"bundle": world / "bundle", "threads": 1}
    train_quantizer(inputs(world), out, factory=SETTINGS["factory"], seed=SETTINGS["seed"], **common)
    for number in range(SHARDS):
        build_shard(inputs(world), out, shard=number, shards=SHARDS, **common)
    gather_shards(out, threads=1)
    return out


def assert_same_shards(one: Path, two: Path) -> None:
    """The same files with the same bytes, but for the times in manifests."""
    names = {path.relative_to(one) for path in one.rglob("*")}
    assert names == {path.relative_to(two) for path in two.rglob("*")}
    for name in names:
        if (one / name).is_dir():
            continue
        if name.name in ("manifest.json", "shards.json"):
            first, second = (json.loads((folder / name).read_text()) for folder in (one, two))
            assert first | {"timings": {}} == second | {"timings": {}}
        else:
            assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_in_shards(world: Path, apart: Path, cluster: None) -> None:
    """The bytes of local jobs, and every file of every shard is that of the local index, divided."""
    reported: list[tuple[str, int, int | None]] = []
    build(world, "shards", shards=SHARDS, progress=lambda *step: reported.append(step))
    assert_same_shards(world / "shards", apart)
    shard_index(world / "local", world / "divided", shards=SHARDS, threads=1)
    for two in (world / "divided").rglob("*"):
        one = world / "shards" / two.relative_to(world / "divided")
        assert one.exists()
        if one.is_file() and one.suffix != ".json":
            assert one.read_bytes() == two.read_bytes()
    first, second = ShardsManifest.read(world / "shards"), ShardsManifest.read(world / "divided")
    assert dataclasses.replace(first, timings={}, shards=()) == dataclasses.replace(
        second, timings={}, shards=()
    )
    added = [(done, total) for phase, done, total in reported if phase == "add"]
    assert (added[0], added[-1], len(added)) == ((0, COUNT), (COUNT, COUNT), SHARDS + 1)
    assert not list(world.glob(".shards.*"))


def test_more_shards_than_passages(world: Path, cluster: None) -> None:
    from ragengine_ray import build

    path = world / "two.jsonl"
    path.write_text('{"text": "a b"}\n{"text": "c d e"}\n', "utf-8")
    build([path], world / "few", bundle=world / "bundle", shards=3, factory="Flat", threads=1)
    manifest = ShardsManifest.read(world / "few")
    assert [(entry.first_row, entry.count) for entry in manifest.shards] == [(0, 0), (0, 1), (1, 1)]
    assert verify_index(world / "few").count == 2


def test_a_filling_worker_is_killed(world: Path, apart: Path, cluster: None) -> None:
    """SIGKILL of the process that fills a shard while it does: another one goes on, to the same bytes."""
    out, over, killed = world / ".unfilled.writing/output", threading.Event(), threading.Event()

    def kill() -> None:
        while not over.is_set() and not killed.is_set():
            if (out / ".shard-0001.writing/state.json").exists():
                for pid in pids_of(b"ray::_fill"):
                    os.kill(pid, signal.SIGKILL)
                    killed.set()
            time.sleep(0.0005)
        if killed.is_set():
            assert not (out / "shard-0001").exists()

    watcher = threading.Thread(target=kill)
    watcher.start()
    build(world, "unfilled", shards=SHARDS, fill_cpus=4)  # one at once
    over.set()
    watcher.join()
    assert killed.is_set(), "the shard was filled before its process was killed"
    assert_same_shards(world / "unfilled", apart)


def test_shards_that_are_filled_are_kept(world: Path, apart: Path, cluster: None) -> None:
    """The program is killed after two shards: the call goes on, but for one that was damaged since."""
    killed_at(world, "refilled", "add", COUNT // 2, shards=SHARDS, fill_cpus=2)
    out = world / ".refilled.writing/output"
    before = {path.name: (path / "vectors.npy").stat() for path in out.glob("shard-*")}
    assert {"shard-0000", "shard-0001"} <= before.keys()
    assert len(before) < SHARDS, "all was finished"
    damaged = out / "shard-0001/vectors.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(IndexFolderError, match=f"shards was {SHARDS}, is 2"):
        build(world, "refilled", shards=2, part_passages=8, resume=True)
    build(world, "refilled", shards=SHARDS, part_passages=8, resume=True)
    after = {name: (world / "refilled" / name / "vectors.npy").stat().st_ino for name in before}
    assert {name for name in before if after[name] == before[name].st_ino} == before.keys() - {"shard-0001"}
    assert_same_shards(world / "refilled", apart)
    assert not list(world.glob(".refilled.*"))


def test_what_cannot_be_divided_is_refused_at_once(world: Path, cluster: None) -> None:
    with pytest.raises(InputError, match="'HNSW8' is IndexHNSWFlat, whose vectors cannot be divided"):
        build(world, "graph", shards=2, factory="HNSW8")
    with pytest.raises(InputError, match="shards is 5000; it must be at most 4096"):
        build(world, "graph", shards=5000)
    assert not (world / ".graph.parts").exists()


@pytest.mark.parametrize("kind", ["column", "file"])
def test_given_vectors(world: Path, cluster: None, tmp_path: Path, kind: str) -> None:
    """The column of Parquet files in the layout of `wiki_dpr`, and a `.npy`."""
    import pyarrow
    import pyarrow.parquet

    from ragengine_ray import build

    vectors, numbers = random_vectors(90), pyarrow.list_(pyarrow.float32())
    for first in (0, 50):
        rows = range(first, min(first + 50, 90))
        table = pyarrow.table(
            {
                "id": [str(row) for row in rows],
                "title": ["t"] * len(rows),
                "text": [f"text {row}" for row in rows],
                "embeddings": pyarrow.array(list(vectors[rows.start : rows.stop]), numbers),
            }
        )
        pyarrow.parquet.write_table(table, tmp_path / f"{first:02d}.parquet", row_group_size=20)
    options: dict[str, Any] = {"bundle": world / "bundle", **SETTINGS}
    if kind == "file":
        np.save(tmp_path / "vectors.npy", vectors)
        options["embeddings"] = tmp_path / "vectors.npy"
    paths = sorted(tmp_path.glob("*.parquet"))
    build_index(paths, tmp_path / "local", **options)
    build(paths, tmp_path / "index", part_passages=16, **options)
    assert_same_index(tmp_path / "index", tmp_path / "local")
    with PassageIndex.open(tmp_path / "index") as index:
        assert index.search(vectors[[70]], 1).rows[0, 0] == int(
            np.argmax(vectors.astype(np.float16) @ vectors[70])
        )


def test_an_actor_is_killed(world: Path, cluster: None) -> None:
    """SIGKILL when some parts are finished and others are not: the index is the same."""
    killed = threading.Event()

    def kill(phase: str, done: int, total: int | None) -> None:
        if phase == "vectors" and done and not killed.is_set() and (pids := pids_of(ENCODER)):
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            killed.set()

    build(world, "killed", part_passages=4, progress=kill)
    assert killed.is_set(), "all parts were finished before an actor was killed"
    assert_same_index(world / "killed", world / "local")


def pids_of(name: bytes) -> list[int]:
    """The processes whose command line has ``name``."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and name in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            pass  # it has ended
    return found


def killed_at(world: Path, name: str, phase: str, done: int, **options: Any) -> None:
    """Run a build in a process that kills itself when ``phase`` is ``done``."""
    program = (
        "import sys, json, os, signal, ray\n"
        "from ragengine_ray import build\n"
        "inputs, index, bundle, options, when, least = json.loads(sys.argv[1])\n"
        "def kill(phase, done, total):\n"
        "    if phase == when and done >= least: os.kill(os.getpid(), signal.SIGKILL)\n"
        "ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 << 20)\n"
        "build(inputs, index, bundle=bundle, part_passages=8, progress=kill, **options)\n"
    )
    paths = [str(path) for path in inputs(world)], str(world / name), str(world / "bundle")
    arguments = json.dumps([*paths, SETTINGS | options, phase, done])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ended = subprocess.run([sys.executable, "-c", program, arguments], env=environment, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    time.sleep(3)  # its actors and tasks end when they miss it


def test_a_killed_build_goes_on(world: Path, cluster: None) -> None:
    """Finished parts are not encoded again, but for one that was damaged since."""
    killed_at(world, "resumed", "vectors", 64)
    before = parts(world, "resumed")
    assert len(before) >= 8, "nothing was finished"
    damaged = next(iter(before))
    path = world / ".resumed.parts" / damaged / "vectors.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    reported: list[int] = []
    seen: dict[str, int] = {}

    def watch(phase: str, done: int, total: int | None) -> None:
        if phase == "vectors" and len(reported) < 1000:
            reported.append(done)
        if phase == "vectors" and done == COUNT and not seen:
            seen.update(parts(world, "resumed"))

    build(world, "resumed", part_passages=8, resume=True, progress=watch)
    assert reported[0] == 8 * (len(before) - 1), "finished parts that are whole"
    assert len(seen) == COUNT // 8
    kept = {name for name in before if seen[name] == before[name]}
    assert kept == before.keys() - {damaged}
    assert_same_index(world / "resumed", world / "local")


def test_other_settings_are_not_resumed(world: Path, cluster: None) -> None:
    with pytest.raises(PassagesError):
        build_bad(world, "other")
    with pytest.raises(IndexFolderError, match="part passages was 32, is 16"):
        build_bad(world, "other", resume=True, part_passages=16)


def build_bad(world: Path, name: str, **options: Any) -> IndexManifest:
    """A build that a bad line ends."""
    from ragengine_ray import build

    path = world / "bad.jsonl"
    path.write_text('{"text": "a b"}\n' * 40 + '{"text": 3}\n', "utf-8")
    return build([path], world / name, bundle=world / "bundle", **{"part_passages": 32, **options})


def test_errors_are_those_of_a_local_build(world: Path, cluster: None, tmp_path: Path) -> None:
    from ragengine_ray import build

    np.save(tmp_path / "few.npy", random_vectors(COUNT - 1))
    broken = random_vectors(COUNT)
    broken[77, 2] = np.nan
    np.save(tmp_path / "nan.npy", broken)
    with pytest.raises(PassagesError, match=r"bad.jsonl, line 41: 'text' must be a string, found int"):
        build_bad(world, "bad")
    common: dict[str, Any] = {"bundle": world / "bundle", "part_passages": 32}
    cases: list[tuple[Any, dict[str, Any], type[RagEngineError], str]] = [
        (
            inputs(world),
            {"embeddings": tmp_path / "few.npy"},
            PassagesError,
            "only 399 vectors for 400 pa",
        ),
        (
            inputs(world),
            {"embeddings": tmp_path / "nan.npy"},
            PassagesError,
            "from row 64 on: .* row 13",
        ),
        (tmp_path / "none.jsonl", {}, PassagesError, "does not exist"),
        (inputs(world), {"bundle": tmp_path / "none"}, BundleError, "is not a folder"),
        ([{"text": "a"}], {}, InputError, "reads passages from files"),
        (inputs(world), {"actors": 0}, InputError, "actors"),
        (
            inputs(world),
            {"num_gpus": -1},
            RagEngineError,
            "num_gpus is -1; it must be a number",
        ),
        (inputs(world), {"factory": "PQ512"}, InputError, "PQ512"),
    ]
    for passages, options, error, said in cases:
        with pytest.raises(error, match=said):
            build(passages, tmp_path / "index", **{**common, **options})
        assert not (tmp_path / "index").exists()
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "mine.txt").touch()
    with pytest.raises(IndexFolderError, match="is not a ragengine-index"):
        build(inputs(world), tmp_path / "index", **common)
