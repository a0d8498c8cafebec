"""The command line: exit codes, one sentence for a user's mistake, extras that are not installed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ragengine_bench.parity.pairs import Pair

BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
sys.argv = ["ragengine", *{arguments!r}]
from ragengine.cli.main import main
main()
"""


def run(*arguments: object, blocked: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with some packages not to be found."""
    code = BLOCKED.format(blocked=set(blocked), arguments=[str(a) for a in arguments])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


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


def test_eval_prints_the_contracts_measures(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "where is Quito?", "answers": ["nowhere"]}\n')
    result = run("eval", pair.bundle, pair.bundle.parent / "index", tmp_path / "q.jsonl", "--json")
    assert result.returncode == 0, result.stderr
    measures = json.loads(result.stdout)
    assert measures["n"] == 1
    assert {"exact_match", "f1", "recall@5"} <= set(measures)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "nowhere", "nowhere", "q"], "nowhere is not a folder"),
        (
            ["ask", "{bundle}", "{bundle}", "q"],
            "says format 'ragengine-bundle'; 'ragengine-index' was expected",
        ),
        (["ask", "{bundle}", "{index}", "q", "--num-beams", "0"], "num_beams is 0"),
        (["ask", "{bundle}", "{index}", "q", "--set", "num_beam=2"], "did you mean 'num_beams'"),
        (["ask", "{bundle}", "{index}", "q", "--plot", "figure.pdf"], "written as .png or .svg"),
        (["ask", "--replay", "nowhere"], "nowhere cannot be read"),
        (["eval", "{bundle}", "{index}", "nowhere.jsonl"], "nowhere.jsonl cannot be read"),
        (["demo", "--folder", "nowhere"], "nowhere"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_1(
    pair: Pair, arguments: list[str], message: str
) -> None:
    index = pair.bundle.parent / "index"
    result = run(*(argument.format(bundle=pair.bundle, index=index) for argument in arguments))
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.startswith("ragengine: ")
    assert result.stderr.count("\n") == 1


def test_wrong_usage_is_exit_code_2() -> None:
    assert run("ask").returncode == 2
    assert run("nonsense").returncode == 2
    assert run("export", "only-one-path").returncode == 2


@pytest.mark.parametrize(("command", "extra"), [("export", "export"), ("bench", "bench"), ("train", "train")])
def test_a_command_without_its_extra_says_what_to_install(command: str, extra: str) -> None:
    result = run(command, "--help", blocked=("torch", "transformers", "onnxscript", "onnx_ir", "matplotlib"))
    assert result.returncode == 1
    assert f"ragengine {command} needs the package " in result.stderr
    assert f'pip install "ragengine[{extra}]"' in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_plot_without_matplotlib_says_what_to_install(pair: Pair) -> None:
    arguments = (
        "ask",
        pair.bundle,
        pair.bundle.parent / "index",
        "q",
        "--max-length",
        "3",
        "--plot",
        "f.png",
    )
    result = run(*arguments, blocked=("matplotlib",))
    assert result.returncode == 1
    assert 'pip install "ragengine[plot]"' in result.stderr
    assert result.stderr.count("\n") == 1


def test_without_onnxruntime_the_remedy_is_named(pair: Pair) -> None:
    result = run("ask", pair.bundle, pair.bundle.parent / "index", "q", blocked=("onnxruntime",))
    assert result.returncode == 1
    assert 'pip install "ragengine[cpu]"' in result.stderr


def test_help_lists_every_command() -> None:
    result = run("--help")
    assert result.returncode == 0
    assert all(name in result.stdout for name in ("ask", "bench", "demo", "eval", "export", "index"))
