"""Output that cannot be written: a full disk is one sentence, a reader that went away is none."""

import subprocess
from pathlib import Path

import pytest

from ragengine_bench.parity.pairs import Pair
from tests.support.commands import COMMAND

FULL = Path("/dev/full")

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")


@pytest.fixture(scope="module")
def index(pair: Pair) -> Path:
    return pair.bundle.parent / "index"


@pytest.mark.parametrize("options", [["--json"], ["--explain"], []])
def test_answers_that_find_no_space(pair: Pair, index: Path, options: list[str]) -> None:
    _is_one_sentence(["ask", str(pair.bundle), str(index), "what?", "--max-length", "3", *options])


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["index", "info", "{index}"], ["index", "info", "{index}", "--json"]],
)
def test_other_output_that_finds_no_space(index: Path, arguments: list[str]) -> None:
    _is_one_sentence([argument.format(index=index) for argument in arguments])


def _is_one_sentence(arguments: list[str]) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    expected = "ragengine: Standard output cannot be written (No space left on device); write it elsewhere.\n"
    assert done.stderr == expected


def test_a_reader_that_goes_away_ends_a_command(index: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "index", "info", str(index)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.wait() == 1
        assert running.stderr.read() == b""


def test_errors_that_cannot_be_said_change_no_exit_code() -> None:
    with FULL.open("w") as full:
        done = subprocess.run([*COMMAND, "index", "info", "nowhere"], stderr=full, check=False)
        assert done.returncode == 1
        assert subprocess.run([*COMMAND, "ask"], stderr=full, check=False).returncode == 2
