"""`ragengine train` is a thin caller of `ragengine_train.train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import ragengine_train
from ragengine_train import TrainProgress, TrainResult, cli

RESULT = TrainResult(Path("run/checkpoint"), Path("run/index"), Path("run/report.json"), 12.4, {}, {})


def test_options_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, dict[str, Any]]] = []

    def run(config: Path, **options: Any) -> TrainResult:
        options.pop("progress")(TrainProgress("encoders", "  1/2 loss 0.5", 1, 2, 0.5))
        calls.append((config, options))
        return RESULT

    monkeypatch.setattr(ragengine_train, "train", run)
    done = CliRunner().invoke(cli.train, ["a.toml", "--from", "joint", "--threads", "3"])
    assert calls == [(Path("a.toml"), {"start": "joint", "fresh": False, "threads": 3})]
    assert done.stdout == f"{RESULT.checkpoint} after 12 s; {RESULT.report}\n"
    assert done.stderr == "  1/2 loss 0.5\n"


def test_processes_that_are_started_again_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torchrun --max-restarts` repeats the command, which was to start over once."""
    calls: list[dict[str, Any]] = []

    def run(config: Path, **options: Any) -> TrainResult:
        calls.append(options)
        return RESULT

    monkeypatch.setattr(ragengine_train, "train", run)
    for count in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
        assert CliRunner().invoke(cli.train, ["a.toml", "--fresh"]).exit_code == 0
    assert [options["fresh"] for options in calls] == [True, False]


def test_fresh_and_from_do_not_go_together() -> None:
    done = CliRunner().invoke(cli.train, ["a.toml", "--fresh", "--from", "joint"])
    assert done.exit_code == 2
    assert "--fresh makes everything again and --from joint does not" in done.stderr
