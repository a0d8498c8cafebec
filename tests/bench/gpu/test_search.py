"""The index search of the GPU measurements."""

from pathlib import Path

from click.testing import CliRunner

from ragengine_bench.gpu.__main__ import main
from ragengine_bench.gpu.report import (
    GpuReport,
)


def test_search_at_toy_size(tmp_path: Path) -> None:
    """Both sides search the same codes; here both are the CPU, one behind the GPU's worker."""
    arguments = ["search", "--device", "cpu", "--size", "toy", "--threads", "1", "--output", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
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
