"""benchmarks/gpu.sh and its steps as far as they go without a GPU: their files, tables and ends, and (slow)
all of them at toy size, through the code that a GPU runs.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ragengine.errors import InputError
from ragengine.runtime.devices import why_no_cuda
from ragengine_bench.gpu.__main__ import STEPS, main
from ragengine_bench.gpu.report import (
    JSON_FILE,
    MARKDOWN_FILE,
    GpuReport,
    Recorder,
    Step,
    Table,
    Target,
    markdown_table,
    step_markdown,
)
from ragengine_bench.harness.runs import Workload
from ragengine_bench.index.synthetic_vectors import Clusters
from tests.support.paths import ROOT

SCRIPT, WHEELS = ROOT / "benchmarks" / "gpu.sh", ROOT / "benchmarks" / "gpu_wheels.sh"
MACHINE = {"processor": "one", "cores": 2, "threads": 2, "date": "today", "versions": {}, "gpus": ["a GPU"]}


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


def test_targets_beside_what_was_measured() -> None:
    assert Target.at_least("ratio", 15, 15.0) == Target("ratio", ">= 15 x", "15 x", True)
    assert Target.at_least("ratio", 15, 14.9).met is False
    assert Target.below("step", 1.2, 1.1994) == Target("step", "< 1.2 ms", "1.2 ms", True)
    assert Target.below("step", 1.2, 1.2).verdict == "no"
    missing = Target.below("step", 1.2, None)
    assert (missing.measured, missing.met, missing.verdict) == ("not measured", None, "")


def test_a_table_is_read_in_a_terminal_and_as_markdown() -> None:
    table = Table("T", ["", "one", "empty", "n|m"])
    table.add("row", 1, "", "12345")
    table.add("longer", "", "", 2)
    assert markdown_table(table).splitlines() == [
        "**T**",
        "",
        "|        | one |   n/m |",
        "| ------ | --: | ----: |",
        "| row    |   1 | 12345 |",
        "| longer |     |     2 |",
    ]
    with pytest.raises(ValueError, match="4 columns, this row 2"):
        table.add("row", 1)


def test_steps_share_a_file_and_keep_their_place(tmp_path: Path) -> None:
    for name in ("first", "second", "first"):
        step = Step(name, "what it is", {"device": "cpu"})
        recorder = Recorder(tmp_path, MACHINE, step)
        table = Table("T", ["", "figure"])
        step.tables.append(table)
        table.add("row", "1")
        recorder.compare(
            Target.at_least("speed", 10, 11.0), Target.at_least("more", 2, 1.0), counts=name == "first"
        )
        recorder.end("" if name == "first" else "no room")
    report = GpuReport.read(tmp_path)
    assert report is not None
    assert [step.name for step in report.steps] == ["first", "second"]
    assert [(step.complete, step.failure) for step in report.steps] == [(True, ""), (False, "no room")]
    assert [[target.met for target in step.targets] for step in report.steps] == [[True, False], [None, None]]
    assert report.steps[0] == Step.from_json(json.loads((tmp_path / JSON_FILE).read_text())["steps"][0])
    text = (tmp_path / MARKDOWN_FILE).read_text("utf-8")
    assert text.startswith("a GPU, one, 2 cores")
    assert "| first: speed | >= 10 x | 11 x | yes |" in re.sub(" +", " ", text)
    assert "## second: what it is (failed)" in text
    assert "Failed: no room" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == [JSON_FILE, MARKDOWN_FILE]


def test_a_step_that_was_killed_left_what_it_had(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, MACHINE, Step("first", "what it is"))
    recorder.step.notes.append("a sentence")
    recorder.save()
    report = GpuReport.read(tmp_path)
    assert report is not None
    assert step_markdown(report.steps[0]).startswith("# first: what it is (not finished)\n\na sentence")


def test_a_report_of_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / JSON_FILE).write_text('{"schema": 99}')
    with pytest.raises(InputError, match="schema 99; this version reads 2"):
        GpuReport.read(tmp_path)


def test_the_script_runs_every_step_and_no_other() -> None:
    (listed,) = re.findall(r'^ALL="([^"]+)"', SCRIPT.read_text("utf-8"), re.MULTILINE)
    names = [step.split(":")[0] for step in listed.split()]
    names.remove("tests")
    assert names == list(STEPS)
    assert CliRunner().invoke(main, ["nothing"]).exit_code == 2
    code, said = shell(SCRIPT, STEPS="models nothing")
    assert code == 2
    assert "there is no step nothing; the steps are doctor models parity-small" in said


def test_the_joint_search_is_asked_of_us_alone() -> None:
    assert "search" not in Workload(marginalize="sequence").options
    assert Workload(marginalize="sequence", search="joint").options["search"] == "joint"


def test_vectors_are_the_same_for_every_number_of_threads(tmp_path: Path) -> None:
    clusters, count = Clusters(40_000, 8), 40_000  # three blocks
    one, several = (clusters.write(tmp_path / f"{n}.npy", count, n) for n in (1, 3))
    np.testing.assert_array_equal(one, several)


def test_search_at_toy_size(tmp_path: Path) -> None:
    """Both sides search the same codes; here both are the CPU, one behind the GPU's worker."""
    asked = ["search", "--device", "cpu", "--size", "toy", "--threads", "1", "--output", str(tmp_path)]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 0, result.output
    report = GpuReport.read(tmp_path)
    assert report is not None
    (step,) = report.steps
    assert step.complete
    (table,) = step.tables
    assert [row[0] for row in table.rows] == [
        f"{side}, {what}" for side in ("CPU", "GPU") for what in ("FAISS alone", "with re-ranking")
    ]
    recalls = [row[1] for row in table.rows if row[1]]
    assert recalls[0] == recalls[1]
    assert float(recalls[0]) >= 0.95
    assert [target.met for target in step.targets] == [None, None, True]
    assert "Placement: " in result.output


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
    assert said.count("left out, the 5 seconds are over") == len(STEPS) + 2  # and doctor, and tests/gpu


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
