"""`ragengine ask`: answers as text, JSON and figures, and recorded answers again."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import click
import pytest
from click.testing import CliRunner

from ragengine.cli.console import SafeConsole
from ragengine.cli.explain import print_answer
from ragengine.cli.main import cli
from ragengine_bench.parity.pairs import Pair
from tests.support.commands import run
from tests.support.paths import WORLDFACTS


def test_ask_prints_an_answer_a_question(pair: Pair) -> None:
    index = pair.bundle.parent / "index"
    result = run(
        "ask", pair.bundle, index, "where is Quito?", "what?", "--json", "--n-docs", "3", "--num-beams", "2"
    )
    assert result.returncode == 0, result.stderr
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["question"] for answer in answers] == ["where is Quito?", "what?"]
    assert all(len(answer["documents"]) == 3 for answer in answers)
    assert all(abs(sum(t["posterior"]) - 1) < 1e-4 for answer in answers for t in answer["tokens"])


def test_explain_shows_every_token_and_document(pair: Pair) -> None:
    index = pair.bundle.parent / "index"
    result = run(
        "ask", pair.bundle, index, "where is Quito?", "--explain", "--n-docs", "3", "--max-length", "9"
    )
    assert result.returncode == 0, result.stderr
    answer = pair.engine.generate("where is Quito?", n_docs=3, max_length=9)
    shares = [f"{round(float(p) * 100)}%" for p in answer.token_posteriors.flatten()]
    assert all(share in result.stdout for share in shares)
    assert "p(z|x,y)" in result.stdout


def test_record_plot_and_pruning_then_replay(pair: Pair, tmp_path: Path) -> None:
    index, record = pair.bundle.parent / "index", tmp_path / "record.json"
    options = ("--n-docs", "4", "--doc-pruning", "0.15", "--max-length", "9", "--set", "min_length=3")
    files = ("--plot", tmp_path / "f.svg", "--record", record)
    asked = run("ask", pair.bundle, index, "where is Quito?", "what?", "--explain", *options, *files)
    assert asked.returncode == 0, asked.stderr
    answer = pair.engine.generate("where is Quito?", n_docs=4, doc_pruning=0.15, max_length=9, min_length=3)
    assert answer.pruned_documents
    assert f"{answer.pruned_documents} not read, with a prior of {answer.pruned_mass:.3g}" in asked.stdout
    assert [(tmp_path / f"f-{number}.svg").exists() for number in (1, 2)] == [True, True]

    same = run("ask", "--replay", record)  # bundle and index as recorded
    assert same.returncode == 0, same.stdout + same.stderr
    assert same.stdout.count("the same") == 2
    first, second = (json.loads(line) for line in record.read_text("utf-8").splitlines())
    assert first["options"]["min_length"] == 3
    second["token_ids"][0] += 1
    record.write_text(json.dumps(first) + "\n" + json.dumps(second), "utf-8")
    differs = run("ask", "--replay", record, pair.bundle, index)
    assert differs.returncode == 1
    assert differs.stderr == ""
    assert differs.stdout.count("the same") == 1
    assert "token_ids: " in differs.stdout


def test_flags_are_sentences(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    answer = pair.engine.generate("where is Quito?", n_docs=100, max_length=4)
    print_answer(SafeConsole(), answer, explain=False)
    printed = capsys.readouterr().out
    assert f"Only {len(answer.documents)} documents were there, fewer than n_docs, 100." in printed
    assert "fewer_documents" not in printed


@pytest.mark.parametrize(
    "arguments",
    [
        ["b", "i"],
        ["b", "i", "q", "--replay", "r"],
        ["--replay", "r", "--num-beams", "2"],
        ["b", "i", "q", "--set", "x"],
    ],
)
def test_ask_says_which_arguments_do_not_go_together(arguments: list[str]) -> None:
    assert run("ask", *arguments).returncode == 2


def commands(group: click.Group, *names: str) -> Iterator[tuple[str, click.Command]]:
    """Every command below a group, with its name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        yield " ".join((*names, name)), found
        if isinstance(found, click.Group):
            yield from commands(found, *names, name)


def test_wherever_bundle_and_index_are_arguments_they_may_be_options() -> None:
    with_both = {
        name: {option for parameter in found.params for option in parameter.opts}
        for name, found in commands(cast(click.Group, cli))
        if {"bundle", "index"} <= {p.name for p in found.params if isinstance(p, click.Argument)}
    }
    assert with_both.keys() == {"ask", "eval", "calibrate", "doctor", "serve", "index search"}
    assert [name for name, options in with_both.items() if not {"--bundle", "--index"} <= options] == []


@pytest.mark.parametrize("command", ["ask", "eval", "doctor", "index search"])
def test_bundle_and_index_may_be_options(command: str, tmp_path: Path) -> None:
    bundle, index = WORLDFACTS / "bundle", WORLDFACTS / "index"
    (tmp_path / "q.jsonl").write_text(
        '{"question": "What is the capital of Iceland?", "answers": ["Reykjavik"]}'
    )
    rest: dict[str, list[object]] = {
        "ask": ["What is the capital of Iceland?", "--json"],
        "eval": [tmp_path / "q.jsonl", "--json", "--resamples", "0"],
        "doctor": ["--json"],
        "index search": ["What is the capital of Iceland?", "--json", "--n-docs", "1"],
    }
    arguments = [*command.split(), "--index", index, *rest[command], "--bundle", bundle]
    done = CliRunner().invoke(cli, [str(word) for word in [*arguments, "--threads", "1"]])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    said = {"ask": "Reykjavik", "eval": 1.0, "doctor": True, "index search": ["Iceland"]}[command]
    titles = [document["title"] for document in found.get("documents", ())]
    assert said in (str(found.get("answer")).strip(), found.get("exact_match"), "reasons" in found, titles)


def test_options_leave_the_other_arguments_of_calibrate_and_search(tmp_path: Path) -> None:
    placing = ["--bundle", tmp_path / "b", "--index", tmp_path / "i"]
    usage = [["calibrate", *placing], ["calibrate", *placing, "dev", "x"], ["index", "search", *placing]]
    assert [run(*arguments).returncode for arguments in usage] == [2, 2, 2]
    done = run("calibrate", *placing, WORLDFACTS / "questions.jsonl")
    assert (done.returncode, f"{tmp_path / 'b'} is not a folder" in done.stderr) == (1, True)
