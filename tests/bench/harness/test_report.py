"""The report: what is written, read and computed."""

from pathlib import Path

import pytest

from ragengine.errors import InputError
from ragengine_bench.harness.report import FILE, Report, percentile


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
