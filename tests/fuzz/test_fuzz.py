"""Short runs of every fuzzer; ``make fuzz HOURS=1`` runs them for longer."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import READERS
from tests.support.paths import ROOT

SEED = "always the same"
"""In the tests that run at every change, so that they fail for what has changed."""


def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, errors="replace")
    print(run.stdout[-8000:], run.stderr[-8000:])
    return run


def test_readers_are_the_modules_under_atheris() -> None:
    sources = {path.stem: path.read_text("utf-8") for path in Path(__file__).parent.glob("*.py")}
    found = {name for name, source in sources.items() if "atheris.instrument_imports(" in source}
    assert found - {Path(__file__).stem} == {*READERS}


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_reader_holds_for_seconds(reader: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed; `make fuzz` installs it")
    run = ran(f"tests.fuzz.{reader}", "-max_total_time=20", f"-artifact_prefix={tmp_path}/")
    assert run.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="it forks, and reads /proc")
def test_first_command_lines() -> None:
    run = ran("tests.fuzz.command_lines", "--seed", SEED, "--cases", "200", "--seconds", "3600")
    assert run.returncode == 0
    assert ": 200 command lines, 0 failures" in run.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it forks, and reads /proc")
def test_new_command_lines() -> None:
    assert ran("tests.fuzz.command_lines", "--seconds", "120").returncode == 0
