"""Cores and instructions, as Linux lists them."""

from pathlib import Path

import pytest

from ragengine.runtime import processor

X86 = """processor	: 0
model name	: A Processor @ 2 GHz
flags		: fpu avx2 {vnni}

processor	: 1
flags		: another
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd sve\n"


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "known", "overflow"),
    [
        ("x86_64", X86.format(vnni="avx512_vnni"), {"fpu", "avx2", "avx512_vnni"}, False),
        ("AMD64", X86.format(vnni="avx_vnni"), {"fpu", "avx2", "avx_vnni"}, False),
        ("x86_64", X86.format(vnni=""), {"fpu", "avx2"}, True),
        ("x86_64", None, set(), True),
        ("aarch64", ARM, {"fp", "asimd", "sve"}, False),
        ("arm64", None, set(), False),
    ],
)
def test_int8_products_overflow_on_x86_without_vnni(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    machine: str,
    cpuinfo: str | None,
    known: set[str],
    overflow: bool,
) -> None:
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    assert processor.instructions() == known
    assert processor.int8_products_overflow.__wrapped__() == overflow


def test_a_processor_has_a_name_and_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(X86)
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    assert processor.model_name() == "A Processor @ 2 GHz"
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "absent")
    assert processor.model_name()
    assert processor.available_cores() >= 1
