"""Power failures: what a rename publishes is on disk before it, and its own name soon after."""

from pathlib import Path

import pytest

from tests.robustness.durability import broken_promises
from tests.robustness.faults import run_faults
from tests.robustness.file_calls import Call
from tests.robustness.unsynced import sync_sites

DURABLE = [
    Call("mkdir", "/w/new"),
    Call("create", "/w/new/file"),
    Call("write", "/w/new/file"),
    Call("sync", "/w/new/file"),
    Call("sync", "/w/new"),
    Call("exchange", "/w/new", "/w/old"),
    Call("sync", "/w"),
]
# The folder that has no checkpoint, as that of an export, is synced by this one alone.
BEFORE_THE_EXCHANGE = "ragengine.storage.atomic put_in_place sync_folder"


@pytest.mark.parametrize("missing", [place for place, call in enumerate(DURABLE) if call.name == "sync"])
def test_each_sync_counts(missing: int) -> None:
    assert broken_promises(DURABLE) == []
    (said,) = broken_promises(DURABLE[:missing] + DURABLE[missing + 1 :])
    assert DURABLE[missing].path in said


def test_a_checkpoint_needs_the_files_beside_it() -> None:
    calls = [Call("create", "/w/output/file"), Call("write", "/w/output/file")]
    calls += [Call("rename", "/w/.state.json.writing", "/w/state.json")]
    said = broken_promises([*calls, Call("sync", "/w")])
    assert [sentence.split(" before ")[1] for sentence in said] == [
        "/w/output is synced",
        "/w/output/file is synced",
    ]


@pytest.mark.parametrize(
    "command",
    [
        "build",
        "add",
        "delete",
        "merge",
        "shards-add",
        "shards-merge",
        pytest.param("export", marks=pytest.mark.slow),
    ],
)
def test_everything_is_synced_before_it_takes_its_place(
    command: str, scene: Path, tmp_path: Path, file_calls: Path
) -> None:
    calls = run_faults(command, scene, tmp_path / "work", "order", "every", file_calls)
    assert {"write", "sync", "exchange"} <= {*calls}


def test_without_a_single_sync_of_the_source_it_is_not(scene: Path, tmp_path: Path, file_calls: Path) -> None:
    assert len(sync_sites()) >= 8
    unnoticed = run_faults("build", scene, tmp_path / "work", "unsynced", "every", file_calls)
    # Files of answers are not what a build writes.
    assert [site for site in unnoticed if "batch_inference" not in site] == [BEFORE_THE_EXCHANGE]


@pytest.mark.slow
def test_export_depends_on_the_sync_before_the_exchange(
    scene: Path, tmp_path: Path, file_calls: Path
) -> None:
    unnoticed = run_faults("export", scene, tmp_path / "work", "unsynced", "every", file_calls)
    assert BEFORE_THE_EXCHANGE not in unnoticed
