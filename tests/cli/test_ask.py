"""`ragengine ask`: answers as text, JSON and figures, and recorded answers again."""

import json
from pathlib import Path

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


@pytest.mark.parametrize("command", ["ask", "eval", "doctor"])
def test_bundle_and_index_may_be_options(command: str, tmp_path: Path) -> None:
    bundle, index = WORLDFACTS / "bundle", WORLDFACTS / "index"
    (tmp_path / "q.jsonl").write_text(
        '{"question": "What is the capital of Iceland?", "answers": ["Reykjavik"]}'
    )
    rest: dict[str, list[object]] = {
        "ask": ["What is the capital of Iceland?", "--json"],
        "eval": [tmp_path / "q.jsonl", "--json", "--resamples", "0"],
        "doctor": ["--json"],
    }
    arguments = [command, "--index", index, *rest[command], "--bundle", bundle]
    done = CliRunner().invoke(cli, [str(word) for word in [*arguments, "--threads", "1"]])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    said = {"ask": "Reykjavik", "eval": 1.0, "doctor": True}[command]
    assert said in (str(found.get("answer")).strip(), found.get("exact_match"), "reasons" in found)
