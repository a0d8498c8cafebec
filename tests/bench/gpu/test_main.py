"""benchmarks/gpu.sh and its steps as far as they run without a GPU: how they end, and (slow) all of them at
toy size, through the code that a GPU runs.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ragengine.runtime.devices import why_no_cuda
from ragengine_bench.gpu.__main__ import STEPS, main
from ragengine_bench.gpu.report import (
    GpuReport,
)
from tests.support.paths import ROOT

SCRIPT, WHEELS = ROOT / "benchmarks" / "gpu.sh", ROOT / "benchmarks" / "gpu_wheels.sh"


def shell(script: Path, *arguments: object, timeout: int = 60, **environment: object) -> tuple[int, str]:
    """Exit code and everything that was printed."""
    settings = (
        os.environ | {"PYTHON": sys.executable} | {name: str(value) for name, value in environment.items()}
    )
    command = ["bash", str(script), *map(str, arguments)]
    done = subprocess.run(
        command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout
    )
    return done.returncode, done.stdout


def test_the_script_runs_every_step_and_no_other() -> None:
    (listed,) = re.findall(r'^ALL="([^"]+)"', SCRIPT.read_text("utf-8"), re.MULTILINE)
    names = [step.split(":")[0] for step in listed.split()]
    names.remove("tests")
    assert names == list(STEPS)
    assert CliRunner().invoke(main, ["nothing"]).exit_code == 2
    code, said = shell(SCRIPT, STEPS="models nothing")
    assert code == 2
    assert "unknown step nothing; the steps are doctor models parity-small" in said


@pytest.mark.skipif(why_no_cuda() is None, reason="CUDA works here")
def test_without_a_gpu_every_step_says_why_and_the_next_one_runs(tmp_path: Path) -> None:
    code, said = shell(
        SCRIPT, OUT=tmp_path / "out", WORK=tmp_path / "work", WHEELS=tmp_path / "none", STEPS="decode memory"
    )
    assert code == 1
    report = GpuReport.read(tmp_path / "out")
    assert report is not None
    assert [step.name for step in report.steps] == ["decode", "memory"]
    assert all(step.failure.startswith("device is cuda, but ") for step in report.steps)
    assert re.search(r"  decode: failed with code 1 after \d+ s\n  memory: failed with code 1", said)


def test_when_the_time_is_over_the_rest_is_left_out(tmp_path: Path) -> None:
    places = {"OUT": tmp_path / "out", "WORK": tmp_path / "work", "WHEELS": tmp_path / "none"}
    code, said = shell(SCRIPT, DEVICE="cpu", LIMIT=5, **places)
    assert code == 1
    assert said.count("skipped, the 5 seconds are over") == len(STEPS) + 2  # and doctor, and tests/gpu


def test_wheels_that_cannot_be_installed_are_said(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "broken-1-py3-none-any.whl").write_bytes(b"no zip")
    places = {"OUT": tmp_path / "out", "WORK": tmp_path / "work", "WHEELS": tmp_path / "wheels"}
    code, said = shell(SCRIPT, DEVICE="cpu", STEPS="doctor", **places)
    assert code == 1
    assert "environment: failed" in said


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A wheel of 2500 bytes in three parts."""
    (tmp_path / "a-1.whl").write_bytes(bytes(range(250)) * 10)
    code, said = shell(WHEELS, "split", tmp_path / "a-1.whl", tmp_path / "parts", PART_BYTES=1000)
    assert (code, said) == (0, "a-1.whl: 3 parts\n")
    return tmp_path / "parts"


def test_a_wheel_travels_in_parts(parts: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in parts.iterdir())
    assert names == [f"a-1.whl.part-00{number}-of-003" for number in (1, 2, 3)] + ["a-1.whl.sha256"]
    last = parts / names[2]
    last.rename(tmp_path / "later")
    assert shell(WHEELS, "take", parts, tmp_path / "there")[0] == 0
    code, said = shell(WHEELS, "join", tmp_path / "there")
    assert (code, "a-1.whl has 2 of 3 parts" in said) == (1, True)
    (tmp_path / "later").rename(last)
    assert shell(WHEELS, "take", parts, tmp_path / "there")[0] == 0
    assert shell(WHEELS, "join", tmp_path / "there")[0] == 0
    assert (tmp_path / "there" / "a-1.whl").read_bytes() == (tmp_path / "a-1.whl").read_bytes()
    assert not list((tmp_path / "there" / "parts").iterdir())


def test_a_damaged_part_is_found(parts: Path, tmp_path: Path) -> None:
    (parts / "a-1.whl.part-002-of-003").write_bytes(b"x" * 1000)
    shell(WHEELS, "take", parts, tmp_path / "there")
    code, said = shell(WHEELS, "join", tmp_path / "there")
    assert (code, "a-1.whl differs from its checksum" in said) == (1, True)
    assert not list((tmp_path / "there").glob("*.whl*"))


def test_wheels_are_not_joined_in_the_repository(parts: Path) -> None:
    target = ROOT / "build" / "wheels"
    code, said = shell(WHEELS, "take", parts, target)
    assert (code, "is in the repository" in said) == (1, True)
    assert not target.exists()
    assert shell(WHEELS, "bring")[0] == 1


@pytest.mark.slow
def test_everything_at_toy_size(tmp_path: Path) -> None:
    """Every step, end to end, by the script."""
    places = {"OUT": tmp_path / "out", "WORK": tmp_path / "work", "WHEELS": tmp_path / "none"}
    code, said = shell(SCRIPT, DEVICE="cpu", SIZE="toy", THREADS=1, LIMIT=1500, timeout=1600, **places)
    assert code == 0, said
    report = GpuReport.read(tmp_path / "out")
    assert report is not None
    assert [step.name for step in report.steps] == list(STEPS)
    for step in report.steps:
        assert step.complete
        assert step.tables
        assert all(len(row) == len(table.columns) for table in step.tables for row in table.rows)
        assert not any("failed" in note for note in step.notes)
    # What does not depend on the device must hold here.
    held = [target for step in report.steps if step.name.startswith("parity") for target in step.targets]
    assert len(held) == 4
    assert all(target.met for target in held)
    loads = next(step for step in report.steps if step.name == "load").tables[0].rows
    assert all(row[-1].split(" of ")[0] == row[-1].split(" of ")[1] for row in loads)
