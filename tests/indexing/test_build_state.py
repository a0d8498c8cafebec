"""A build killed at any point: the old index stays whole, and --resume ends with the same bytes."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine.errors import IndexFolderError, PassagesError
from ragengine.indexing.build import build_index
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import FORMAT, IndexManifest
from ragengine.storage import folders, ownership
from tests.support.bundles import WORDS, E, add_passage_encoder, random_vectors, write_bundle

COUNT = 700
FACTORY = "OPQ2_4,IVF4,PQ2x4"
SMALL_BLOCKS = {
    "training": {"ROWS_AT_ONCE": 100, "_CHECKPOINT_SECONDS": 0.0},
    "inverted_lists": {"ROWS_AT_ONCE": 100},
    "vector_sources": {"ROWS_AT_ONCE": 100, "_SORTED_TOGETHER": 100},
    "writer": {"_SAVE_SECONDS": 0.0, "_REPORT_EVERY": 100},
}
"""Blocks, checkpoints and saved states every hundred passages, so that a kill falls between them."""

CHILD = """
import json, os, signal, sys
from pathlib import Path
from ragengine.indexing import build, inverted_lists, training, vector_sources, writer
from ragengine.storage import atomic, folders

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

job = json.loads(sys.argv[1])
for module, values in job["constants"].items():
    for name, value in values.items():
        setattr(globals()[module], name, value)
where, when = job["kill"]
if where == "manifest":
    real_manifest = writer.write_index_manifest
    writer.write_index_manifest = lambda *arguments: (real_manifest(*arguments), die())
if where == "exchange":
    real_exchange = atomic.exchange
    atomic.exchange = lambda *folders: (real_exchange(*folders), die())
if where == "rename":
    atomic.exchange = lambda *folders: False  # as on a system that cannot
    real_rename, renamed = os.rename, []
    def rename(old, new):
        real_rename(old, new)
        renamed.append(new)
        if len(renamed) == when:
            die()
    os.rename = rename
def progress(phase, done, total):
    if phase == where and done >= when:
        die()
build.build_index(**job["arguments"], progress=progress)
"""


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Arguments of a build whose vectors the bundle's own passage encoder makes."""
    for module, values in SMALL_BLOCKS.items():
        for name, value in values.items():
            monkeypatch.setattr(f"ragengine.indexing.{module}.{name}", value)
    random = np.random.default_rng(0)
    bundle = write_bundle(tmp_path / "bundle", E)
    add_passage_encoder(bundle, random.integers(-4, 5, (len(WORDS), E)))
    lines = [
        json.dumps({"title": "t", "text": " ".join(random.choice(WORDS[4:], random.integers(1, 20)))})
        for _ in range(COUNT)
    ]
    (tmp_path / "passages.jsonl").write_text("\n".join(lines))
    return {
        "passages": str(tmp_path / "passages.jsonl"),
        "index": str(tmp_path / "index"),
        "bundle": str(bundle),
        "force": True,
        "factory": FACTORY,
        "recall": 0.5,
    }


def killed_build(arguments: dict[str, Any], kill: tuple[str, int]) -> None:
    job = json.dumps({"arguments": arguments, "constants": SMALL_BLOCKS, "kill": kill})
    child = subprocess.run([sys.executable, "-c", CHILD, job], capture_output=True, text=True, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr


def content(index: Path) -> dict[str, Any]:
    """All of an index but the times that it took: hashes of its files, and its manifest."""
    with PassageIndex.open(index) as opened:
        opened.verify()
    manifest: dict[str, Any] = json.loads((index / folders.MANIFEST).read_text())
    assert manifest.pop("timings")
    return manifest


def siblings(index: Path) -> list[str]:
    return [path.name for path in index.parent.iterdir() if path.name.startswith(".")]


KILLS = [
    ("passages", 300),
    ("vectors", 300),
    ("train", 0),
    ("train", 2),
    ("add", 300),
    ("exact", 0),
    ("tune", 1),
    ("manifest", 0),
    ("exchange", 0),
    ("rename", 1),
    ("rename", 2),
]


@pytest.mark.parametrize(
    ("kill", "old_index"),
    [*((kill, True) for kill in KILLS), (("add", 300), False), (("rename", 1), False)],
    ids=str,
)
def test_killed_build_resumes_to_the_same_bytes(
    tmp_path: Path, arguments: dict[str, Any], kill: tuple[str, int], old_index: bool
) -> None:
    index = Path(arguments["index"])
    if old_index:
        np.save(tmp_path / "old.npy", random_vectors(COUNT))
        build_index(**{**arguments, "factory": "Flat", "embeddings": tmp_path / "old.npy"})
        old = content(index)
    killed_build(arguments, kill)
    in_place = kill in ([("exchange", 0), ("rename", 2)] if old_index else [("rename", 1)])
    if old_index and not in_place:
        if kill == ("rename", 1):  # between the two: any write repairs it, even one that fails
            assert not index.exists()
            with pytest.raises(IndexFolderError, match="cannot be resumed: seed was 0, is 1"):
                build_index(**arguments, resume=True, seed=1)
        assert content(index) == old
    else:
        assert index.exists() == in_place
    steps: list[tuple[str, int, int | None]] = []
    build_index(**arguments, resume=True, progress=lambda *step: steps.append(step))
    resumed = content(index)
    assert siblings(index) == []
    assert "passages" not in {phase for phase, *_ in steps} or kill[0] == "passages"
    build_index(**{**arguments, "index": tmp_path / "whole"})
    assert resumed == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("kill", "first"), [(("vectors", 300), ("vectors", 200)), (("add", 300), ("add", 300))]
)
def test_resumed_build_goes_on_where_it_was(
    arguments: dict[str, Any], kill: tuple[str, int], first: tuple[str, int]
) -> None:
    killed_build(arguments, kill)
    steps: list[tuple[str, int, int | None]] = []
    build_index(**arguments, resume=True, progress=lambda *step: steps.append(step))
    # The callback of row 300 runs before row 300 is written down, so that one block is done again.
    assert next((phase, done) for phase, done, _ in steps if done) == first


def test_build_without_resume_begins_again(arguments: dict[str, Any]) -> None:
    killed_build(arguments, ("tune", 1))
    steps: list[str] = []
    build_index(**arguments, progress=lambda phase, done, total: steps.append(phase))
    assert steps[0] == "passages"
    assert siblings(Path(arguments["index"])) == []


def test_resume_with_nothing_left_builds(arguments: dict[str, Any]) -> None:
    assert build_index(**arguments, resume=True).count == COUNT


def test_leftover_without_a_checkpoint_is_not_continued(arguments: dict[str, Any]) -> None:
    """A run that could not remove all of the old index leaves files where new ones are written."""
    index = Path(arguments["index"])
    wanted = build_index(**arguments).files
    leftover = index.parent / f".{index.name}.writing" / folders.OUTPUT
    leftover.mkdir(parents=True)
    (leftover.parent / ownership.MARK).touch()
    (leftover / "index.faiss").write_bytes(b"of the old index")
    (leftover.parent / "filled.faiss").write_bytes(b"of the old index")
    assert build_index(**arguments, resume=True).files == wanted
    assert siblings(index) == []


def test_old_index_that_cannot_be_removed_does_not_come_back(
    arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What tells the old folder from the new one stays as long as the old one does."""
    index = Path(arguments["index"])
    build_index(**{**arguments, "recall": 0.5})
    real = shutil.rmtree

    def failing(path: Path, *arguments: Any, **options: Any) -> None:
        if Path(path).name != folders.REMOVED:
            real(path, *arguments, **options)
        elif not options.get("ignore_errors"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(shutil, "rmtree", failing)
    wanted = build_index(**arguments)
    monkeypatch.undo()
    assert siblings(index) != []
    assert build_index(**arguments, resume=True) == wanted
    assert siblings(index) == []


def test_resume_refuses_other_inputs_and_settings(tmp_path: Path, arguments: dict[str, Any]) -> None:
    killed_build(arguments, ("vectors", 300))
    with Path(arguments["passages"]).open("a") as file:
        file.write('\n{"title": "one", "text": "more"}')
    os.utime(arguments["passages"], ns=(1, 1))
    with pytest.raises(IndexFolderError, match="cannot be resumed") as caught:
        build_index(**{**arguments, "recall": 0.25, "seed": 7}, resume=True)
    message = str(caught.value)
    assert "recall was 0.5, is 0.25" in message
    assert "seed was 0, is 7" in message
    assert "modified 1)" in message
    assert message.endswith("build as before, or without --resume.")
    assert siblings(Path(arguments["index"])) == [".index.writing"]  # still there for the right command


def test_interrupted_build_is_kept_and_a_wrong_one_is_not(arguments: dict[str, Any]) -> None:
    index = Path(arguments["index"])

    def stop(error: BaseException) -> Callable[..., None]:
        def progress(phase: str, done: int, total: int | None) -> None:
            if phase == "add":
                raise error

        return progress

    with pytest.raises(KeyboardInterrupt):
        build_index(**arguments, progress=stop(KeyboardInterrupt()))
    assert siblings(index) == [".index.writing"]
    assert build_index(**arguments, resume=True).count == COUNT
    with pytest.raises(PassagesError):
        build_index(**arguments, progress=stop(PassagesError("wrong")))
    assert siblings(index) == []


def test_full_disk_is_said_and_resumed(arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(phase: str, done: int, total: int | None) -> None:
        if phase == "add":
            raise OSError(28, "No space left on device")

    with pytest.raises(IndexFolderError, match=r"No space left .*; nothing was changed.*--resume goes on"):
        build_index(**arguments, progress=full)
    assert build_index(**arguments, resume=True).count == COUNT


def test_damaged_state_is_refused(arguments: dict[str, Any]) -> None:
    killed_build(arguments, ("vectors", 300))
    state = Path(arguments["index"]).parent / ".index.writing" / "state.json"
    for text, message in (
        ("{", "cannot be read"),
        ("[" * 60_000, "cannot be read"),
        ('{"rows": "x"}', "settings: missing"),
    ):
        state.write_text(text)
        with pytest.raises(IndexFolderError, match=f"{message}.*build without --resume"):
            build_index(**arguments, resume=True)


def test_two_writers_of_one_folder(arguments: dict[str, Any]) -> None:
    refused: list[str] = []

    def meanwhile(phase: str, done: int, total: int | None) -> None:
        if phase == "add" and not refused:
            with pytest.raises(IndexFolderError, match="is being written by another process") as caught:
                build_index(**arguments)
            refused.append(str(caught.value))

    assert build_index(**arguments, progress=meanwhile).count == COUNT
    assert len(refused) == 1
    assert IndexManifest.read(arguments["index"]).count == COUNT
    assert FORMAT in (Path(arguments["index"]) / folders.MANIFEST).read_text()
