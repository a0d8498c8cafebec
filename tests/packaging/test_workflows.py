"""The workflows of hosted CI: YAML that parses, whose every command is a target of the Makefile."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.project import PROJECT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def read_jobs(path: Path) -> dict[str, Any]:
    jobs: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))["jobs"]
    return jobs


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_command_is_a_make_target(path: Path) -> None:
    commands = [step["run"] for job in read_jobs(path).values() for step in job["steps"] if "run" in step]
    assert commands
    for command in commands:
        assert re.fullmatch(r"make [a-z-]+", command), command
        assert command.removeprefix("make ") in TARGETS


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_job_checks_out_and_ends(path: Path) -> None:
    for job in read_jobs(path).values():
        assert job["steps"][0]["uses"].startswith("actions/checkout@")
        assert 0 < job["timeout-minutes"] <= 60


def test_there_is_a_workflow_for_each_habit() -> None:
    assert {path.stem for path in WORKFLOWS} == {"lint", "tests", "docs"}


def test_the_tests_run_on_every_supported_python() -> None:
    matrix = read_jobs(ROOT / ".github" / "workflows" / "tests.yml")["tests"]["strategy"]["matrix"]["python"]
    assert matrix == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["requires-python"] == f">={matrix[0]}"
    stated = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    assert stated <= set(matrix)


def test_local_ci_runs_the_same_targets() -> None:
    """`.ci/run` is what a machine without hosted CI runs."""
    local = set(re.findall(r"^make ([a-z-]+)$", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE))
    assert {"lint", "test"} <= local <= TARGETS


def test_make_says_that_an_older_python_is_too_old(tmp_path: Path) -> None:
    """pip would name the versions of numpy that the constraints rule out."""
    python = tmp_path / "python"
    old = "import sys; sys.version_info = (3, 10, 13); exec(sys.argv[1])"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{old}' \"$2\"\n")
    python.chmod(0o755)
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text("utf-8"))
    done = subprocess.run(
        ["make", ".venv/bin/python", f"PYTHON={python}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"ragengine needs Python 3.11 or newer, and {python} is 3.10; run make with PYTHON=" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_every_target_is_declared_phony() -> None:
    """A file of a target's name must not keep `make` from running it."""
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == TARGETS
