"""A call to the system fails, writes less, or is the last: either the old or the new folder is whole."""

from pathlib import Path

import pytest

from tests.robustness.faults import FAULTS, run_faults
from tests.robustness.writers import COMMANDS


@pytest.mark.parametrize(
    "command", ["build", "add", "delete", "merge", "sync", "upsert", "compact", "shards-add"]
)
def test_some_calls_fail(command: str, scene: Path, tmp_path: Path, file_calls: Path) -> None:
    tried = run_faults(command, scene, tmp_path / "work", ",".join(FAULTS), "3", file_calls)
    assert len(tried) >= 3 * len(FAULTS)


@pytest.mark.slow
@pytest.mark.parametrize("how", FAULTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_call_fails(command: str, how: str, scene: Path, tmp_path: Path, file_calls: Path) -> None:
    assert run_faults(command, scene, tmp_path / "work", how, "every", file_calls)
