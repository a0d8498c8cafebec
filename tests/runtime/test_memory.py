"""How much memory a process has and may still take."""

import sys
from pathlib import Path

import numpy as np
import pytest

from ragengine.runtime import memory


def test_resident_memory_grows_with_what_is_held() -> None:
    before = memory.resident_bytes()
    held = np.ones(64 << 20, np.uint8)
    assert 48 << 20 < memory.resident_bytes() - before < 128 << 20
    assert held[-1] == 1


@pytest.mark.parametrize(
    ("meminfo", "limit", "left"),
    [
        ("MemTotal: 9999 kB\nMemAvailable: 2048 kB\n", "max", 2048 * 1024),
        ("MemTotal: 9999 kB\nMemAvailable: 2048 kB\n", "1000000", 700000),
        ("MemTotal: 9999 kB\nMemAvailable: 1 kB\n", "1000000", 1024),
        ("MemTotal: 9999 kB\n", "1000000", 700000),
        ("what is this?", "max", None),
        (None, "max", None),
    ],
)
def test_the_less_of_machine_and_container_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meminfo: str | None, limit: str, left: int | None
) -> None:
    if meminfo is not None:
        (tmp_path / "meminfo").write_text(meminfo)
    for name, text in (("max", limit), ("current", "400000"), ("stat", "anon 5\ninactive_file 100000")):
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.available_memory() == left


def test_outside_of_linux_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "absent")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "absent")
    monkeypatch.setattr(memory, "_STATM", tmp_path / "absent")
    assert memory.available_memory() is None
    assert memory.resident_bytes() > 1 << 20  # the most it has had


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_free_memory_of_the_heap_is_given_back() -> None:
    held = [bytes(40_000) for _ in range(2_000)]  # below the size that is mapped by itself
    kept = [held[row] for row in range(0, 2_000, 200)] + [held[-1]]
    full = memory.resident_bytes()
    del held
    memory.release_free_memory()
    assert full - memory.resident_bytes() > 40 << 20
    assert len(kept) == 11
