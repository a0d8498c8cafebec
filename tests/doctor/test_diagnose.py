"""`ragengine doctor`: what it finds here, and that whatever is broken is a finding and never a traceback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from ragengine.doctor import Diagnosis, Finding, diagnose
from ragengine.doctor.machine import two_cudas
from ragengine.errors import DeviceError
from ragengine.runtime import devices
from ragengine.runtime.devices import resolve_device
from ragengine_bench.parity.pairs import Pair
from tests.support.cuda_driver import make_cuda_driver

COMMAND = "import sys; sys.argv[0] = 'ragengine'; from ragengine.cli.main import main; main()"
no_cuda = pytest.mark.skipif(
    devices.CUDA_PROVIDER in ort.get_available_providers(), reason="this onnxruntime has CUDA"
)


def doctor(*arguments: object, **environment: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", COMMAND, "doctor", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            **{name: str(value) for name, value in environment.items()},
        },
    )


def reported(*arguments: object, **environment: object) -> tuple[int, dict[str, Any]]:
    """The exit code and the JSON of a run, which must have nothing on stderr."""
    result = doctor(*arguments, "--json", **environment)
    assert result.stderr == ""
    return result.returncode, json.loads(result.stdout)


# --- this machine -------------------------------------------------------------------------------------


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


# --- what is wrong is a finding -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "reasons"),
    [
        (["nowhere"], ["nowhere is not a folder"]),
        (["{bundle}", "nowhere"], ["nowhere is not a folder"]),
        (["{index}", "{bundle}"], ["says format 'ragengine-index'", "says format 'ragengine-bundle'"]),
    ],
)
def test_wrong_folders_are_reasons(pair: Pair, arguments: list[str], reasons: list[str]) -> None:
    index = pair.bundle.parent / "index"
    paths = [Path(part.format(bundle=pair.bundle, index=index)) for part in arguments]
    found = diagnose(*paths, device="cpu").reasons
    assert len(found) == len(reasons)
    assert all(part in reason for part, reason in zip(reasons, found, strict=True))


def test_a_damaged_graph_is_a_reason(pair: Pair, tmp_path: Path) -> None:
    bundle = shutil.copytree(pair.bundle, tmp_path / "bundle")
    weights = bundle / "generator" / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    (reason,) = diagnose(bundle, device="cpu").reasons
    assert "generator/weights.bin" in reason


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


def test_whatever_is_raised_ends_a_section_and_no_more() -> None:
    def half() -> Any:
        yield Finding("first", 1)
        raise KeyError("no such thing")

    diagnosis = Diagnosis("auto")
    diagnosis.examine("part", half)
    diagnosis.examine("rest", lambda: iter([Finding("second", 2, problem="It is small.")]))
    assert diagnosis.to_dict() == {
        "device": "auto",
        "usable": False,
        "reasons": ["part failed with KeyError: 'no such thing'"],
        "warnings": ["It is small."],
        "part": {"first": 1, "error": "part failed with KeyError: 'no such thing'"},
        "rest": {"second": 2},
    }


# --- CUDA -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("libraries", "said"),
    [
        ([], ""),
        (["libcudart.so.13", "libcublas.so.13", "libcudnn.so.9", "libcufft.so.12"], ""),
        (["libcudart.so.12", "libcudart.so.13"], "(libcudart 12 and 13)"),
        (["libcublas.so.12.6.1", "libcublas.so.13", "libcudart.so.13"], "(libcublas 12 and 13)"),
    ],
)
def test_two_versions_of_cuda_in_one_process(libraries: list[str], said: str) -> None:
    sentence = two_cudas(libraries)
    assert bool(sentence) == bool(said)
    assert said in sentence


def read_by(driver: Path) -> dict[str, Any]:
    """What doctor finds with the CUDA driver in a folder."""
    _, found = reported("--device", "cpu", LD_LIBRARY_PATH=driver)
    return dict(found["cuda"])


def test_the_driver_and_its_devices_are_findings(tmp_path: Path) -> None:
    found = read_by(make_cuda_driver(tmp_path, devices=2))
    assert found["driver"] == "13.2"
    assert found["device 0"] == {
        "name": "Card zero", "compute": "9.0", "free": (5 << 32) + 7, "total": 9 << 32
    }  # fmt: skip
    assert (found["device 1"]["name"], found["device 1"]["compute"]) == ("Card one", "9.1")


@pytest.mark.parametrize("broken", [{"init_status": 999}, {"devices": 0}])
def test_a_driver_that_does_not_work_is_a_finding(tmp_path: Path, broken: dict[str, int]) -> None:
    found = read_by(make_cuda_driver(tmp_path, **broken))
    assert found["driver"] is None
    assert "device 0" not in found


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
