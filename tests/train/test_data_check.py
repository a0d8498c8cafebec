"""`ragengine data check` finds what makes training useless, and nothing in data that are right."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ragengine.errors import PassagesError
from ragengine_train import Finding, check_data
from ragengine_train.cli import data
from tests.support.training_world import write_config, write_data, write_models

Edit = Callable[[list[dict[str, Any]]], None]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_data(folder / "data")
    write_models(folder / "start")
    write_config(folder, joint="max_steps = 1")
    return folder


def findings(world: Path, file: str, edit: Edit) -> dict[str, Finding]:
    """What is found after ``edit`` has changed the lines of ``file``, which is restored."""
    config, path = world / "run.toml", world / "data" / file
    before = path.read_text("utf-8")
    lines = [json.loads(line) for line in before.splitlines()]
    edit(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    try:
        return {finding.kind: finding for finding in check_data(config)}
    finally:
        path.write_text(before, "utf-8")


def first(**changes: Any) -> Edit:
    return lambda lines: lines[0].update(changes)


def test_nothing_is_found_in_right_data(world: Path) -> None:
    assert check_data(world / "run.toml") == ()


def test_words_that_the_tokenizer_does_not_know(world: Path) -> None:
    found = findings(world, "train.jsonl", first(question="誰 is the mayor?"))
    assert found.keys() == {"unknown_words"}
    assert found["unknown_words"].count == 1
    assert "[UNK]" in found["unknown_words"].message
    assert found["unknown_words"].examples == (f"{world / 'data' / 'train.jsonl'}, line 1: 誰 is the mayor?",)


def test_answers_that_cannot_be_written_and_stand_nowhere(world: Path) -> None:
    found = findings(world, "train.jsonl", first(answers=["<s>"]))
    assert {"unwritable_answers", "absent_answers"} <= found.keys()
    assert found["unwritable_answers"].count == 1
    assert found["absent_answers"].examples[0].endswith("'<s>'")


def test_an_answer_that_is_only_in_another_passage(world: Path) -> None:
    lines = [json.loads(line) for line in (world / "data" / "train.jsonl").read_text("utf-8").splitlines()]
    other = next(line["answers"] for line in lines if line["answers"] != lines[0]["answers"])
    assert findings(world, "train.jsonl", first(answers=other)).keys() == {"absent_answers"}
    # Without a gold passage it may stand anywhere.
    assert findings(world, "train.jsonl", first(answers=other, passage_id=None)) == {}
    # A word of a longer word is not the answer.
    part = lines[0]["answers"][0][:-1]
    assert findings(world, "train.jsonl", first(answers=[part])).keys() == {"absent_answers"}
    # A passage of the line's own counts.
    given = {"title": "A", "text": f"It is {other[0]}."}
    assert findings(world, "train.jsonl", first(answers=other, passage=given)) == {}


def test_questions_that_are_measured_and_trained_on(world: Path) -> None:
    dev = json.loads((world / "data" / "dev.jsonl").read_text("utf-8").splitlines()[0])
    line = dev | {"question": dev["question"].upper().replace("?", "")}
    found = findings(world, "train.jsonl", lambda lines: lines.append(line))
    assert found.keys() == {"shared_questions"}
    assert found["shared_questions"].count == 1


def test_passages_that_there_are_not(world: Path) -> None:
    found = findings(world, "train.jsonl", first(passage_id="t999"))
    assert found.keys() == {"unknown_passages"}
    assert found["unknown_passages"].examples[0].endswith("line 1: t999")
    assert findings(world, "dev.jsonl", first(hard_negative_ids=["nowhere"])).keys() == {"unknown_passages"}


def test_prompts_and_answers_that_are_cut(world: Path) -> None:
    long = {"title": "A", "text": "the mayor of the town is " * 40 + json.loads(
        (world / "data" / "train.jsonl").read_text("utf-8").splitlines()[0])["answers"][0]}  # fmt: skip
    found = findings(world, "train.jsonl", first(passage=long))
    assert found.keys() == {"cut_prompts"}
    assert found["cut_prompts"].count == 1
    text = " ".join(["mayor of the town"] * 10)
    found = findings(world, "train.jsonl", first(answers=[text], passage={"title": "A", "text": text}))
    assert "cut_answers" in found


def test_the_command_warns_and_fails_only_where_it_shall(world: Path) -> None:
    done = CliRunner().invoke(data, ["check", str(world / "run.toml")])
    assert (done.exit_code, done.output) == (0, "nothing found\n")
    path = world / "data" / "train.jsonl"
    before = path.read_text("utf-8")
    lines = [json.loads(line) | {"passage_id": "t999"} for line in before.splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    try:
        done = CliRunner().invoke(data, ["check", str(world / "run.toml")])
        assert done.exit_code == 0
        assert f"and {len(lines) - 3} more" in done.output
        done = CliRunner().invoke(data, ["check", "--strict", str(world / "run.toml")])
        assert isinstance(done.exception, PassagesError)
        assert "unknown_passages" in str(done.exception)
    finally:
        path.write_text(before, "utf-8")
