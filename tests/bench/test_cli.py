"""`ragengine bench`: the command, interrupted and whole, and what it writes."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from ragengine_bench.harness.tables import tables_of

from ragengine.errors import InputError
from ragengine_bench.cli import bench
from ragengine_bench.compare.html_page import write_page
from ragengine_bench.compare.plots import write_plots
from ragengine_bench.harness.process import Engine, EngineError, have
from ragengine_bench.harness.report import FILE, Report, Row, Sample, Section, percentile
from ragengine_bench.harness.runs import FIRST_WORD, Workload

COMMAND = [sys.executable, "-c", "from ragengine.cli.main import main; main()", "bench"]
TINY = ["--shape", "tiny", "--source-tokens", "12", "--target-tokens", "5", "--threads", "1"]


@pytest.fixture
def report() -> Report:
    stages = {"encode documents": 0.02, "decode": 0.03, "between": 0.01}
    rooflines = {"encode documents": 0.01, "decode": 0.005}
    ours = [
        Sample(0.06, 1, 4, stages, rooflines, [0.01, 0.02]),
        Sample(0.07, 1, 4, stages, rooflines, [0.03]),
    ]
    rows = [
        Row(
            "transformers fp32",
            "padded to 300",
            samples=[Sample(0.6, 1, 4), Sample(0.7, 1, 4)],
            outputs=[[7]],
        ),
        Row("CTranslate2 int8", "int8", does_less="no marginalisation", failure="not installed"),
        Row("ragengine fp32", "a bundle", ours=True, load_seconds=0.1, peak_bytes=10**8, samples=ours),
    ]
    sweep = [
        Row("ragengine fp32", "", True, point=n, samples=[Sample(0.1 * n, rooflines=rooflines)])
        for n in (1, 2)
    ]
    machine = {"processor": "<a & b>", "cores": 2, "threads": 2, "date": "today", "versions": {"numpy": "2"}}
    sections = [
        Section("generation", "RAG-Token & more", {"documents": 5}, rows=rows),
        Section("sweep", "beams varied", {}, "beams", sweep),
    ]
    return Report(["--shape", "tiny"], machine, {"fp32 GEMM, operations/s": 1e9}, sections)


def test_a_report_is_read_as_it_was_written(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path)
    assert Report.read(tmp_path) == report
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


def test_a_report_of_another_schema_is_refused(report: Report, tmp_path: Path) -> None:
    report.schema = 99
    report.write(tmp_path)
    with pytest.raises(InputError, match="schema 99; this version reads 2, so measure again"):
        Report.read(tmp_path)


def test_percentiles() -> None:
    values = [float(value) for value in range(101)]
    assert [percentile(values[::-1], percent) for percent in (50, 90, 99)] == [50, 90, 99]
    assert percentile([3.0], 99) == 3
    assert percentile([1.0, 2.0], 90) == pytest.approx(1.9)


def test_rates_and_rooflines_of_a_row(report: Report) -> None:
    row = report.sections[0].rows[2]
    assert row.questions_per_second == pytest.approx(2 / 0.13)
    assert row.tokens_per_second == pytest.approx(8 / 0.13)
    assert row.roofline("decode") == pytest.approx(0.005)
    assert row.roofline("between") is None
    assert row.whole_roofline == pytest.approx(0.015)
    assert row.times_roofline == pytest.approx((4 + 0.07 / 0.015) / 2)
    assert row.step_seconds == [0.01, 0.02, 0.03]


def test_tables_have_ratios_rooflines_and_reasons(report: Report) -> None:
    (_, columns, rows), (_, _, costs), (_, _, stages) = tables_of(report.sections[0])
    assert columns[-1] == "ragengine fp32 is faster by"
    assert rows[0][-1] == "10.0 x"
    assert rows[1][:2] == ["CTranslate2 int8 *", "not installed"]
    assert costs[1][-1] == "int8; no marginalisation; not installed"
    assert ["decode", "30.0 ms", "30.0 ms", "30.0 ms", "46%", "5.0 ms", "6.0 x"] in stages


def test_the_page_needs_nothing_else(report: Report, tmp_path: Path) -> None:
    plots = write_plots(report, tmp_path)
    assert sorted(plot.stem for plot in plots) == ["1-generation-ratios", "1-generation-stages", "2-beams"]
    assert all(plot.with_suffix(".png").read_bytes().startswith(b"\x89PNG") for plot in plots)
    page = write_page(report, plots, tmp_path).read_text("utf-8")
    places = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", page)
    assert len(places) == len(plots)
    assert all(place.startswith("data:image/svg+xml;base64,") for place in places)
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert "&lt;a &amp; b&gt;" in page
    assert "Interrupted" in page
    report.complete = True
    assert "Interrupted" not in write_page(report, plots, tmp_path).read_text("utf-8")


def test_a_whole_run(tmp_path: Path) -> None:
    """All of our own parts, for real, on the tiny shape."""
    asked = [*TINY, "--precision", "int8", "--marginalize", "sequence", "--batch", "2", "--sweep", "beams"]
    asked += ["--peer", "none", "--repeats", "2", "--output", str(tmp_path)]
    done = subprocess.run([*COMMAND, *asked], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    report = Report.read(tmp_path)
    assert report.complete
    assert set(report.command) == set(asked)
    assert [section.kind for section in report.sections] == ["generation", "batch", "sweep"]
    for row in (row for section in report.sections for row in section.rows):
        assert not row.failure
        assert len(row.samples) == 2
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
    asked = [*TINY, "--peer", "none", "--repeats", "1000000", "--output", tmp_path]
    with subprocess.Popen([*COMMAND, *asked], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
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
    ("asked", "expected"),
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
def test_what_does_not_go_together_is_said_in_one_sentence(asked: list[str], expected: str) -> None:
    result = CliRunner().invoke(bench, asked)
    assert result.exit_code == 2
    (line,) = [line for line in result.output.splitlines() if line.startswith("Error")]
    assert expected in line


def test_the_index_benchmark_is_a_subcommand_where_it_is_installed() -> None:
    found = have(None, ["ragengine_bench.index.command"])
    assert (CliRunner().invoke(bench, ["index", "--help"]).exit_code == 0) is found
    assert CliRunner().invoke(bench, ["nothing"]).exit_code == 2


ENGINE = """
import os, time

class Echo:
    def __init__(self, start): self.count = start
    def add(self, number): print("this is no reply"); self.count += number; return self.count
    def grow(self, count): self.kept = bytearray(b"x" * count); del self.kept
    def sleep(self, seconds): time.sleep(seconds)
    def fail(self): raise ValueError("first line\\nsecond line")
    def die(self): os._exit(3)
"""


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    path = tmp_path / "echo.py"
    path.write_text(ENGINE)
    return path


def test_an_engine_answers_from_its_own_process(echo: Path) -> None:
    with Engine(f"{echo}:Echo", {"start": 1}, threads=1, python=sys.executable, limit=60) as engine:
        assert engine.call("add", number=2).result == 3
        slow = engine.call("sleep", seconds=0.2)
        assert 0.2 <= slow.seconds < 5
        large = engine.call("grow", fresh=True, count=1 << 27)
        assert large.peak_bytes > 1 << 27
        with pytest.raises(EngineError, match=r"^ValueError: first line$"):
            engine.call("fail")
        assert engine.call("add", number=1).result == 4


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peaks can be forgotten on Linux alone"
)
def test_a_fresh_call_counts_memory_anew(echo: Path) -> None:
    with Engine(f"{echo}:Echo", {"start": 1}, threads=1, python=sys.executable, limit=60) as engine:
        engine.call("grow", count=1 << 28)
        assert engine.call("add", fresh=True, number=1).peak_bytes < 1 << 28


def test_an_engine_that_ends_or_hangs_is_given_up(echo: Path) -> None:
    with Engine(f"{echo}:Echo", {"start": 1}, threads=1, python=sys.executable, limit=60) as engine:
        with pytest.raises(EngineError, match="its process ended with code 3"):
            engine.call("die")
        with pytest.raises(EngineError, match="its process ended with code 3"):
            engine.call("add", number=1)
    with Engine(f"{echo}:Echo", {"start": 1}, threads=1, python=sys.executable, limit=0.5) as engine:
        with pytest.raises(EngineError, match="no answer within"):
            engine.call("sleep", seconds=60)
        with pytest.raises(EngineError, match="was ended before"):
            engine.call("add", number=1)


def test_an_engine_that_cannot_load_says_why(echo: Path) -> None:
    with pytest.raises(EngineError, match=r"TypeError: .*unexpected keyword argument 'other'"):
        Engine(f"{echo}:Echo", {"other": 1}, threads=1, python=sys.executable, limit=60)
    with pytest.raises(EngineError, match="cannot be started"):
        Engine(f"{echo}:Echo", {}, threads=1, python="no-such-python", limit=60)


def test_whether_an_environment_has_modules() -> None:
    assert have(None, ["numpy", "json"])
    assert not have(None, ["numpy", "no_such_module"])
    assert not have(None, ["no_such.module"])
    assert not have("no-such-python", ["json"])


def test_workloads_are_the_same_for_every_engine(tmp_path: Path) -> None:
    load = Workload(batch=2, documents=3, source=7)
    with (
        np.load(load.write(tmp_path / "one.npz", 60)) as one,
        np.load(load.write(tmp_path / "two.npz", 60)) as two,
    ):
        assert {name: one[name].shape for name in one} == {
            "ids": (2, 3, 7),
            "mask": (2, 3, 7),
            "scores": (2, 3),
        }
        assert all((one[name] == two[name]).all() for name in one)
        assert one["ids"].min() >= FIRST_WORD
        assert one["ids"].max() < 60
