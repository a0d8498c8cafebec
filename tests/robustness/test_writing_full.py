"""The disk is full or a limit is reached: one sentence, nothing changed, and the next run works."""

import resource
from pathlib import Path

import faiss
import numpy as np
import pytest

from ragengine.indexing import training
from tests.robustness.endings import can_mount, run_endings
from tests.robustness.forks import in_fork

COMMANDS = ("export", "build", "add", "delete", "merge", "import")


@pytest.mark.parametrize(("command", "steps"), [("export", 1), ("build", 6), ("add", 6)])
def test_full_disk_is_said(command: str, steps: int, scene: Path, tmp_path: Path) -> None:
    if not can_mount():
        pytest.skip("no small disk can be mounted here (unshare -rm); the limited sizes below remain")
    said = run_endings(command, scene, tmp_path / "work", "full", str(steps), mounted=True)
    assert len(said) >= steps
    assert all("make room there" in sentence for sentence in said)


@pytest.mark.parametrize(("command", "steps"), [("build", 6), ("import", 4)])
def test_limited_size_of_files_is_said(command: str, steps: int, scene: Path, tmp_path: Path) -> None:
    said = run_endings(command, scene, tmp_path / "work", "limited", str(steps))
    assert len(said) >= steps


def test_last_bytes_of_a_faiss_file_are_not_lost(tmp_path: Path) -> None:
    """FAISS's own writer ignores the error of closing a file whose last bytes do not fit."""
    index = faiss.IndexFlatIP(4)
    index.add(np.ones((1, 4), np.float32))

    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))
        training.write_faiss(index, tmp_path / "index.faiss")

    outcome = in_fork(write)
    assert "File too large" in str(outcome)
    assert list(tmp_path.iterdir()) == []
    training.write_faiss(index, tmp_path / "index.faiss")
    assert (tmp_path / "index.faiss").stat().st_size > 40


@pytest.mark.slow
@pytest.mark.parametrize("how", ["full", "limited"])
@pytest.mark.parametrize("command", COMMANDS)
def test_at_every_size(command: str, how: str, scene: Path, tmp_path: Path) -> None:
    if how == "full" and not can_mount():
        pytest.skip("no small disk can be mounted here (unshare -rm)")
    steps = 20 if command == "export" else 100
    run_endings(command, scene, tmp_path / "work", how, str(steps), mounted=how == "full")
