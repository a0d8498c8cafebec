"""The wheel: what is in it, and that it answers questions in an environment that holds nothing else."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT, WORLDFACTS
from tests.support.project import PROJECT, packages

QUESTION = "What is the capital of Iceland?"
ANSWER = "Reykjavik"
FOLDERS = [str(WORLDFACTS / "bundle"), str(WORLDFACTS / "index")]
PYTHON = f"""
import importlib.util
from ragengine import RagEngine
assert importlib.util.find_spec("torch") is None
with RagEngine.load({FOLDERS[0]!r}, index={FOLDERS[1]!r}, device="cpu") as engine:
    print(engine.generate({QUESTION!r}).text)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as `make build` makes it, by the setuptools that is installed here: no network."""
    copy = tmp_path_factory.mktemp("source")  # setuptools writes beside the source
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for folder in {path.parent for path in packages().values()}:
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(folder, copy / folder.name, ignore=ignored)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", str(copy))
    (path,) = (copy / "dist").iterdir()
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel and the extra `cpu`, from the registry."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    run(
        str(folder / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        *constraints,
        f"{wheel}[cpu]",
    )
    return folder / "bin"


def run(*command: str, cwd: Path | None = None, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a program that must not find this clone's packages."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def test_the_wheel_contains_every_package_with_its_data(wheel: Path) -> None:
    expected = {
        str(path.relative_to(folder.parent))
        for folder in packages().values()
        for pattern in ("*.py", "py.typed", "*.onnx", "page/*.*")
        for path in folder.rglob(pattern)
    }
    assert {f"{package}/py.typed" for package in packages()} <= expected
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected
    assert wheel.name == f"ragengine-{PROJECT['version']}-py3-none-any.whl"


@pytest.mark.slow
def test_the_wheel_answers_outside_the_clone(environment: Path, tmp_path: Path) -> None:
    by_command = run(str(environment / "ragengine"), "ask", *FOLDERS, QUESTION, cwd=tmp_path)
    assert ANSWER in by_command.stdout
    by_python = run(str(environment / "python"), "-c", PYTHON, cwd=tmp_path)
    assert by_python.stdout.strip() == ANSWER
    version = run(str(environment / "ragengine"), "--version", cwd=tmp_path)
    assert PROJECT["version"] in version.stdout


@pytest.mark.slow
def test_the_demo_outside_a_clone_is_refused_in_one_sentence(environment: Path, tmp_path: Path) -> None:
    refused = run(str(environment / "ragengine"), "demo", cwd=tmp_path, status=1)
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_messages_name_the_wheel_that_was_installed(environment: Path, wheel: Path, tmp_path: Path) -> None:
    done = run(str(environment / "ragengine"), "export", "source", "bundle", cwd=tmp_path, status=1)
    assert f'run pip install "{wheel}[export]" (without a GPU run pip install torch ' in done.stderr
    assert "--precision" in run(str(environment / "ragengine"), "export", "--help", cwd=tmp_path).stdout
