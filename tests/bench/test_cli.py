"""`ragengine bench`: the command, interrupted and whole, and what it writes."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from ragengine_bench.cli import bench
from ragengine_bench.harness.process import have
from ragengine_bench.harness.report import FILE, Report

COMMAND = [sys.executable, "-c", "from ragengine.cli.main import main; main()", "bench"]
TINY = ["--shape", "tiny", "--source-tokens", "12", "--target-tokens", "5", "--threads", "1"]


def test_a_whole_run(tmp_path: Path) -> None:
    """All of our own parts, for real, on the tiny shape."""
    arguments = [*TINY, "--precision", "int8", "--marginalize", "sequence", "--batch", "2"]
    arguments += ["--sweep", "beams", "--peer", "none", "--repeats", "2", "--output", str(tmp_path)]
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    report = Report.read(tmp_path)
    assert report.complete
    assert set(report.command) == set(arguments)
    assert [section.kind for section in report.sections] == ["generation", "batch", "sweep"]
    for row in (row for section in report.sections for row in section.rows):
        assert not row.failure
        assert len(row.samples) in (2, 4, 6)  # again where they spread
        assert row.peak_bytes is not None
        assert row.peak_bytes > 10**7
        for sample in row.samples:
            assert sum(sample.stages.values()) == pytest.approx(sample.seconds)
            assert set(sample.rooflines) == {"encode documents", "decode"}
            assert sum(sample.step_seconds) == pytest.approx(sample.stages["decode"])
    together, alone = report.sections[1].rows
    assert together.outputs == alone.outputs
    assert [len(row.samples[0].step_seconds) for row in (together, alone)] == [4, 8]
    assert [row.point for row in report.sections[2].rows] == [1, 2, 4, 8]
    assert {path.name for path in tmp_path.glob("*.svg")} >= {"1-generation-stages.svg", "3-beams.svg"}
    assert (tmp_path / "index.html").exists()
    assert "ragengine int8" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path, number: signal.Signals) -> None:
    arguments = [
        "--shape",
        "tiny",
        "--threads",
        "1",
        "--peer",
        "none",
        "--repeats",
        "1000000",
    ]  # its defaults fit
    arguments += ["--output", str(tmp_path)]
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        until = time.monotonic() + 300
        while not _samples(tmp_path):
            assert running.poll() is None, running.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.05)
        running.send_signal(number)
        _, error = running.communicate(timeout=120)
    assert running.returncode == 130
    assert error.decode().splitlines()[-1].startswith("ragengine bench: interrupted; what was measured is in")
    assert not Report.read(tmp_path).complete
    assert _samples(tmp_path)
    assert "Interrupted" in (tmp_path / "index.html").read_text("utf-8")


def _samples(folder: Path) -> int:
    if not (folder / FILE).exists():
        return 0
    content = json.loads((folder / FILE).read_text("utf-8"))
    return sum(len(row["samples"]) for section in content["sections"] for row in section["rows"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--bundle", "b"], "--bundle and --index go together; give both for whole questions."),
        (["--questions", "q"], "--questions needs --bundle and --index, the model it belongs to."),
        (
            ["--bundle", "b", "--index", "i", "--precision", "fp32"],
            "--precision belongs to --shape; a --bundle has the precision it was exported in.",
        ),
        (
            ["--bundle", "b", "--index", "i", "--sweep", "precision"],
            "--sweep precision needs --shape, whose random weights are exported in each.",
        ),
        (
            ["--shape", "tiny", "--source-tokens", "65"],
            "--source-tokens is 65; the shape tiny has 64 positions, so ask for fewer.",
        ),
        (["--shape", "huge"], "'huge' is not one of"),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], expected: str) -> None:
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == 2
    (line,) = [line for line in result.output.splitlines() if line.startswith("Error")]
    assert expected in line


def test_the_index_benchmark_is_a_subcommand_where_it_is_installed() -> None:
    found = have(None, ["ragengine_bench.index.command"])
    assert (CliRunner().invoke(bench, ["index", "--help"]).exit_code == 0) is found
    assert CliRunner().invoke(bench, ["nothing"]).exit_code == 2
