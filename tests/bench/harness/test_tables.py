"""The tables of a report."""

from ragengine_bench.harness.report import Report
from ragengine_bench.harness.tables import tables_of


def test_tables_have_ratios_rooflines_and_reasons(report: Report) -> None:
    (_, columns, rows), (_, _, costs), (_, _, stages) = tables_of(report.sections[0])
    assert columns[-1] == "ragengine fp32 is faster by"
    assert rows[0][-1] == "10.0 x"
    assert rows[1][:2] == ["CTranslate2 int8 *", "not installed"]
    assert costs[1][-1] == "int8; no marginalisation; not installed"
    assert ["decode", "30.0 ms", "30.0 ms", "30.0 ms", "46%", "5.0 ms", "6.0 x"] in stages
