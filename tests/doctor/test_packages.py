"""Packages that do not load, or that overwrite each other, are findings and never a traceback."""

from pathlib import Path

import pytest

from ragengine_bench.parity.pairs import Pair
from tests.support.doctor import reported


@pytest.mark.parametrize(
    ("package", "body", "said"),
    [
        ("onnxruntime", "raise ImportError('libfoo.so.1: cannot open')", "ImportError: libfoo.so.1: cannot"),
        ("onnxruntime", "", "has no attribute"),
        ("faiss", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "ends Python with SIGSEGV"),
        ("faiss", "1 / 0", "ZeroDivisionError: division by zero"),
        ("tokenizers", "raise ModuleNotFoundError('No module named foo')", "No module named foo"),
    ],
)
def test_a_broken_package_is_a_finding(
    pair: Pair, tmp_path: Path, package: str, body: str, said: str
) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(body)
    code, found = reported(pair.bundle, pair.bundle.parent / "index", "--device", "cpu", PYTHONPATH=tmp_path)
    assert code == 1
    assert any(said in reason for reason in found["reasons"]), found["reasons"]
    assert said in found[package]["error"]
    assert found["processor"]["cores"]["allowed"] >= 1
    assert "answer" not in found


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["onnxruntime", "onnxruntime_gpu"], "onnxruntime and onnxruntime-gpu are both installed"),
        (["faiss_cpu", "faiss_gpu"], "faiss-cpu and faiss-gpu are both installed"),
    ],
)
def test_distributions_that_overwrite_each_other_are_named(
    tmp_path: Path, names: list[str], said: str
) -> None:
    for name in names:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n"
        )
    _, found = reported("--device", "cpu", PYTHONPATH=tmp_path)
    assert any(said in warning for warning in found["warnings"])
    assert found["usable"]  # it works for all that
