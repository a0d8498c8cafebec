"""Options that several commands share: NAME=VALUE pairs, and which of two settings wins."""

import os
import select
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from ragengine.cli.common import generation_options, given, may_replace, placed, progress_bar


@click.command()
@generation_options
def command(**settings: Any) -> None:
    click.echo(repr(given(**settings)))


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ([], {}),
        (["--num-beams", "2"], {"num_beams": 2}),
        (["--set", "min-length=3"], {"min_length": 3}),
        (["--set", "early_stopping=never"], {"early_stopping": "never"}),
        (["--set", "bad_words_ids=[[1, 2]]"], {"bad_words_ids": [[1, 2]]}),
        (["--set", "num_beams=4", "--num-beams", "2"], {"num_beams": 2}),
        (["--set", "a=1", "--set", "a=b=c"], {"a": "b=c"}),
    ],
)
def test_generation_options_by_flag_or_name(arguments: list[str], settings: dict[str, Any]) -> None:
    assert CliRunner().invoke(command, arguments).output == f"{settings!r}\n"


def test_a_value_nested_too_deeply_is_a_usage_error() -> None:
    done = CliRunner().invoke(command, ["--set", f"bad_words_ids={'[' * 60_000}"])
    assert done.exit_code == 2
    assert "is nested too deeply." in done.output
    assert len(done.output) < 600


@pytest.mark.parametrize("pair", ["x", "=1"])
def test_what_is_no_pair_is_a_usage_error(pair: str) -> None:
    done = CliRunner().invoke(command, ["--set", pair])
    assert done.exit_code == 2
    assert f"'{pair}' is not NAME=VALUE." in done.output


def test_a_progress_bar_writes_nothing_to_stdout_nor_to_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """rich would end its bar with an empty line on stderr, in front of what the command says there."""
    with progress_bar("answering") as report:
        report(1, 2)
        report(2, 2)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        (["b", "i", "q"], (None, None), ("b", "i", ["q"])),
        (["i", "q", "r"], ("b", None), ("b", "i", ["q", "r"])),
        (["b", "q"], (None, "i"), ("b", "i", ["q"])),
        (["q//r"], ("b", "i"), ("b", "i", ["q//r"])),
        ([None, None], (None, None), (None, None, [])),
        (["b"], (None, None), ("b", None, [])),
    ],
)
def test_an_option_stands_for_an_argument_and_the_others_move_up(
    arguments: list[str | None], options: tuple[str | None, ...], expected: tuple[Any, ...]
) -> None:
    bundle, index, others = placed(arguments, *(None if name is None else Path(name) for name in options))
    assert (bundle and str(bundle), index and str(index), others) == expected


@pytest.mark.parametrize(
    ("terminal", "typed", "may"), [(False, "", False), (True, "y\n", True), (True, "n\n", False)]
)
def test_a_terminal_is_asked_and_a_script_is_not(
    terminal: bool, typed: str, may: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not may_replace(tmp_path / "new", False)
    assert may_replace(tmp_path / "new", True)
    (tmp_path / "manifest.json").touch()
    assert may_replace(tmp_path, True)
    primary, secondary = os.openpty()
    device = Path(os.ttyname(secondary))
    with device.open() as terminal_in, device.open("w") as terminal_out:
        if terminal:
            monkeypatch.setattr("sys.stdin", terminal_in)
            monkeypatch.setattr("sys.stderr", terminal_out)
            os.write(primary, typed.encode())
        assert may_replace(tmp_path, False) is may
    said = ""
    while select.select([primary], [], [], 0.1)[0]:
        said += os.read(primary, 1000).decode()
    os.close(primary)
    os.close(secondary)
    assert ("exists. Replace it?" in said) == terminal


@pytest.mark.parametrize("output", ["[" * 5000, "a\0b"])
def test_what_is_no_path_is_no_folder_to_replace(output: str) -> None:
    """Whoever writes it says that it is none."""
    assert may_replace(output, False) is False
