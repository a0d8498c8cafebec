"""`ragengine demo` finds the embedded model in a clone, and outside of one says how to get it."""

import json
from email.message import Message
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from click.testing import CliRunner

from ragengine.cli import demo as command
from ragengine.cli.demo import demo, embedded_model
from ragengine.errors import InputError
from tests.support.paths import ROOT, WORLDFACTS


def test_it_answers_what_the_folder_asks() -> None:
    done = CliRunner().invoke(demo, ["--folder", str(WORLDFACTS), "--no-explain", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert done.output.count(" ms (") == command.QUESTIONS
    assert "Ask your own:" in done.output


def test_what_was_expected_stands_beside_a_wrong_answer_alone(tmp_path: Path) -> None:
    for name in ("bundle", "index"):
        (tmp_path / name).symlink_to(WORLDFACTS / name)
    asked = [("What is the capital of Iceland?", "reykjavik"), ("What is the capital of Peru?", "Atlantis")]
    lines = [json.dumps({"question": question, "answers": [answer]}) for question, answer in asked]
    (tmp_path / "questions.jsonl").write_text("\n".join(lines), "utf-8")
    done = CliRunner().invoke(demo, ["--folder", str(tmp_path), "--no-explain", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "right: " not in done.output
    assert [line.strip() for line in done.output.splitlines() if "expected: " in line] == [
        "expected: Atlantis"
    ]


def test_the_model_is_found_from_any_folder_of_a_clone(tmp_path: Path) -> None:
    assert embedded_model(tmp_path, ROOT / "engine/ragengine/cli/demo.py", otherwise="") == WORLDFACTS
    assert embedded_model(ROOT, otherwise="") == WORLDFACTS


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        (
            ["Homepage, https://example.org", "Source, https://example.org/ragengine"],
            "; run git clone https://example.org/ragengine and run this in the clone, or give --folder",
        ),
        (["Homepage, https://example.org"], "; run git clone https://example.org and run"),
        ([], "; clone the repository of ragengine and run"),
        (None, "; clone the repository of ragengine and run"),
    ],
)
def test_outside_of_a_clone_it_says_how_to_get_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, urls: list[str] | None, said: str
) -> None:
    def metadata(name: str) -> Message:
        if urls is None:
            raise PackageNotFoundError(name)
        message = Message()
        for url in urls:
            message["Project-URL"] = url
        return message

    installed = tmp_path / "site-packages" / "ragengine" / "cli" / "demo.py"
    monkeypatch.setattr(command, "metadata", metadata)
    monkeypatch.setattr(command, "__file__", str(installed))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(demo, [])
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith("The embedded model is not part of the installed package, and ")
    assert said in str(done.exception)
