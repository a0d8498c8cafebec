"""The command line: exit codes, one sentence for a user's mistake, extras that are not installed."""

import pytest

from ragengine_bench.parity.pairs import Pair
from tests.support.commands import run


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
