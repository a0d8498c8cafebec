"""Options that several commands share: NAME=VALUE pairs, and which of two settings wins."""

from typing import Any

import click
import pytest
from click.testing import CliRunner

from ragengine.cli.common import generation_options, given, progress_bar


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


def test_a_progress_bar_writes_nothing_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("answering") as report:
        report(1, 2)
        report(2, 2)
    assert capsys.readouterr().out == ""
