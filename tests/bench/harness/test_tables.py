"""The tables of a report."""

from dataclasses import replace

import pytest

from ragengine_bench.harness.report import Report, Row, Sample, Section
from ragengine_bench.harness.tables import NOISY, machine_line, noise, tables_of


def test_tables_have_ratios_rooflines_and_reasons(report: Report) -> None:
    (_, columns, rows), (_, _, costs), (_, _, stages) = tables_of(report.sections[0])
    assert columns[-1] == "ragengine fp32 is faster by"
    assert rows[0][-1] == "10.0 x"
    assert rows[1][:2] == ["CTranslate2 int8 *", "not installed"]
    assert costs[1][-1] == "int8; no marginalisation; not installed"
    assert ["decode", "30.0 ms", "30.0 ms", "30.0 ms", "46%", "5.0 ms", "6.0 x"] in stages


def runs(name: str, *seconds: float, ours: bool = False) -> Row:
    return Row(name, "", ours, samples=[Sample(value) for value in seconds])


def test_no_ratio_is_told_of_runs_that_spread_more_than_a_third() -> None:
    quiet, noisy = runs("one", 1.0, 1.1, 1.2), runs("two", 1.0, 1.1, 2.0)
    section = Section("generation", "", {}, rows=[quiet, noisy, runs("ours", 0.5, 0.5, 0.5, ours=True)])
    _, _, rows = tables_of(section)[0]
    assert [row[-1] for row in rows] == ["2.2 x", NOISY, ""]
    assert noise(section).startswith("Noisy: the runs of two spread")
    assert noise(replace(section, rows=section.rows[::2])) == ""
    # of ours, too
    section.rows[2] = runs("ours", 0.5, 0.5, 0.9, ours=True)
    assert [row[-1] for row in tables_of(section)[0][2]] == [NOISY, NOISY, ""]


@pytest.mark.parametrize("with_peer", [True, False])
def test_many_engines_of_ours_are_compared_with_the_others_or_the_first(with_peer: bool) -> None:
    rows = [runs(f"ours {n}", 1.0 / n, 1.0 / n, 1.0 / n, ours=True) for n in range(1, 5)]
    peer = [runs("theirs", 2.0, 2.0, 2.0)] if with_peer else []
    _, columns, cells = tables_of(Section("generation", "", {}, rows=[*peer, *rows]))[0]
    assert columns[4:] == [f"faster than {'theirs' if with_peer else 'ours 1'} by"]
    expected = ["", "2.0 x", "4.0 x", "6.0 x", "8.0 x"] if with_peer else ["", "2.0 x", "3.0 x", "4.0 x"]
    assert [row[-1] for row in cells] == expected


def test_one_slow_run_of_many_is_no_noise() -> None:
    section = Section("generation", "", {}, rows=[runs("one", *[1.0] * 14, 5.0)])
    assert not section.is_noisy(section.rows[0])


def test_different_questions_take_different_times() -> None:
    section = Section("questions", "", {}, rows=[runs("one", 1.0, 5.0)])
    assert not section.is_noisy(section.rows[0])


def test_the_gain_of_a_batch_is_not_told_either() -> None:
    rows = [runs("ours, 8 at once", 1.0, 1.0, 3.0), runs("ours, one by one", 2.0, 2.0, 2.0)]
    _, columns, cells = tables_of(Section("batch", "", {}, rows=rows))[0]
    assert columns[-1] == "throughput against one by one"
    assert cells[0][-1] == NOISY


@pytest.mark.parametrize(("steal", "told"), [(0.126, "13% of the processor's time stolen"), (None, "")])
def test_the_machine_is_described(report: Report, steal: float | None, told: str) -> None:
    line = machine_line({**report.machine, "instruction_sets": ["avx2", "amx_int8"], "steal": steal})
    assert "avx2 amx_int8" in line
    assert told in line
    assert ("stolen" in line) == bool(told)
