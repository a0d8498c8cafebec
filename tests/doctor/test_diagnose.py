"""`ragengine doctor` on this machine: what it finds, for people and for programs."""

import os
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest

from ragengine.doctor import diagnose
from ragengine.errors import DeviceError
from ragengine.runtime import devices
from ragengine.runtime.devices import resolve_device
from ragengine_bench.parity.pairs import Pair
from tests.support.doctor import COMMAND, doctor, reported

no_cuda = pytest.mark.skipif(
    devices.CUDA_PROVIDER in ort.get_available_providers(), reason="this onnxruntime has CUDA"
)


def test_a_question_is_answered(pair: Pair) -> None:
    diagnosis = diagnose(pair.bundle, pair.bundle.parent / "index", device="cpu", threads=1)
    assert diagnosis.reasons == []
    found = diagnosis.to_dict()
    assert found["usable"] is True
    assert found["bundle"]["whole"]
    assert found["bundle"]["precision"] == "fp32"
    assert found["bundle"]["device"] == "cpu"
    assert found["index"]["belongs to the bundle"]
    assert found["index"]["placement"]["kind"] == "cpu"
    question = found["answer"]["question"]
    answer = pair.engine.generate(question)
    assert found["answer"]["answer"] == answer.text
    assert found["answer"]["milliseconds"].keys() == answer.timings_ms.keys()
    nodes = {name: value for name, value in found["bundle"].items() if name.startswith("nodes of ")}
    assert {Path(name).name for name in nodes} >= {"encoder.onnx", "cross.onnx", "decoder.onnx"}
    assert all(list(value["nodes"]) == ["CPUExecutionProvider"] for value in nodes.values())
    assert all(value["fell_to_cpu"] == {} for value in nodes.values())


def test_it_says_what_is_installed_for_people() -> None:
    result = doctor("--device", "cpu")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert f"onnxruntime {ort.__version__}" in result.stdout or "onnxruntime-gpu" in result.stdout
    assert result.stdout.endswith("Questions can be answered with --device cpu.\n")


def test_it_says_what_is_installed_for_programs() -> None:
    code, found = reported("--device", "cpu")
    assert code == 0
    assert found["device"] == "cpu"
    assert found["software"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["processor"]["cores"]["allowed"] == len(os.sched_getaffinity(0))
    assert 0 < found["memory"]["available"] <= found["memory"]["total"]
    assert found["onnxruntime"]["CPUExecutionProvider"] is True
    assert found["faiss"]["threads"] == 1
    assert isinstance(found["cuda"]["libraries"], dict)
    assert found["reasons"] == []


@no_cuda
def test_cuda_is_refused_with_the_sentence_of_the_error(pair: Pair) -> None:
    with pytest.raises(DeviceError) as error:
        resolve_device("cuda")
    code, found = reported("--device", "cuda", "--search-device", "cpu")
    assert code == 1
    assert found["reasons"] == [str(error.value)]
    code, found = reported(pair.bundle, pair.bundle.parent / "index", "--search-device", "cuda")
    assert code == 1
    assert len(found["reasons"]) == 1
    assert "the index cannot be searched there: this faiss" in found["reasons"][0]
    assert "answer" not in found


def test_faiss_without_its_cuda_libraries_is_one_sentence(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "faiss").mkdir()
    (tmp_path / "faiss" / "__init__.py").write_text("raise RuntimeError('libcublas.so.13 is missing')")
    result = subprocess.run(
        [sys.executable, "-c", COMMAND, "ask", pair.bundle, pair.bundle.parent / "index", "what?"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert result.returncode == 1
    assert result.stderr.startswith(
        "ragengine: faiss cannot be loaded: libcublas.so.13 is missing; ragengine doctor"
    )
    assert result.stderr.count("\n") == 1
