"""What kind of machine the figures come from."""

from pathlib import Path

import pytest

from ragengine.runtime import processor
from ragengine_bench.harness import machine as module
from ragengine_bench.harness.machine import StealClock, machine


def test_instruction_sets_are_those_of_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: A\nflags\t\t: fpu avx2 amx_int8 avx512f_not\n", "utf-8")
    monkeypatch.setattr(processor, "_CPUINFO", cpuinfo)
    found = machine(1)
    assert found["instruction_sets"] == ["avx2", "amx_int8"]
    assert found["processor"] == "A"
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "missing")
    assert machine(1)["instruction_sets"] == []


def test_steal_is_counted_from_the_start_of_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    monkeypatch.setattr(module, "_STAT", stat)
    assert StealClock().share is None  # no such file
    stat.write_text("cpu  100 0 100 800 0 0 0 50 9 9\ncpu0 1\n", "utf-8")
    clock = StealClock()
    assert clock.share is None  # no time has passed
    stat.write_text("cpu  150 0 110 820 0 0 0 70 9 9\ncpu0 1\n", "utf-8")
    assert clock.share == pytest.approx(0.2)
