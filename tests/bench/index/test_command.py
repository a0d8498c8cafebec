"""`ragengine bench index`: the figures it gives, and what an interrupt leaves."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from ragengine_bench.index import command


def test_the_command_prints_reports_and_plots(tmp_path: Path) -> None:
    arguments = ["--vectors", "2000", "--dimension", "16", "--queries", "20", "--threads", "1"]
    arguments += ["--method", "flat", "--method", "opq-ivf-pq", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(command.index_bench, arguments)
    assert result.exit_code == 0, result.output
    assert "x flat" in result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [method["method"] for method in report["methods"]] == ["flat", "opq-ivf-pq"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "recall.png",
        "recall.svg",
        "report.json",
    ]


def test_a_terminated_run_keeps_what_was_measured(tmp_path: Path) -> None:
    arguments = ["--vectors", "30000", "--dimension", "64", "--queries", "20", "--threads", "1"]
    arguments += ["--method", "flat", "--method", "hnsw", "--output", str(tmp_path / "out")]
    program = "from ragengine_bench.index.command import index_bench; index_bench()"
    (tmp_path / "work").mkdir()
    child = subprocess.Popen(
        [sys.executable, "-c", program, *arguments, "--work", str(tmp_path / "work")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("HNSW16: adding"):
            child.send_signal(signal.SIGTERM)
            break
    printed, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert "interrupted" in said
    assert "Flat, 30,000 vectors" in printed
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [method["method"] for method in report["methods"]] == ["flat"]
    assert not list((tmp_path / "work").iterdir())


def test_options_that_need_each_other(tmp_path: Path) -> None:
    result = CliRunner().invoke(command.index_bench, ["--bundle", str(tmp_path)])
    assert result.exit_code == 2
    assert "need --index" in result.output
