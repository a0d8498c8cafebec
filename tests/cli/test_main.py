"""The command line: exit codes, one sentence for a user's mistake, extras that are not installed."""

import subprocess
import sys

import pytest

from ragengine.installation import TORCH_FOR_CPU, pip_install
from ragengine_bench.parity.pairs import Pair
from tests.support.commands import BLOCKING, run
from tests.support.paths import ROOT

EXTRA_MODULES = (
    "torch", "transformers", "optimum", "safetensors", "onnxscript", "onnx_ir", "datasets", "pyarrow", "h5py",
    "msgpack", "matplotlib", "sacrebleu", "rouge_score", "regex", "accelerate", "ctranslate2", "httpx2",
    "fastapi", "uvicorn", "prometheus_client", "starlette", "pydantic", "h11", "opentelemetry",
)  # fmt: skip
"""What the extras bring, but for `cpu` and `gpu`."""
WALK = """
import click
from ragengine.cli.main import cli

def walk(command, names):
    context = click.Context(command, info_name=names[-1])
    assert command.get_help(context)
    print(" ".join(names))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            walk(command.get_command(context, name), [*names, name])

walk(cli, ["ragengine"])
"""


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
        (["index", "build", "nowhere.tsv", "new", "--bundle", "{bundle}"], "nowhere.tsv does not exist"),
        (["index", "add", "{index}", "nowhere.tsv", "--bundle", "{bundle}"], "nowhere.tsv does not exist"),
        (["index", "sync", "nowhere", "{index}", "--bundle", "{bundle}"], "nowhere does not exist"),
        (["index", "import", "nowhere", "new", "--bundle", "{bundle}"], "nowhere"),
        (["index", "merge", "nowhere", "{index}", "new"], "nowhere is not a folder"),
        (["index", "verify", "nowhere"], "nowhere is not a folder"),
        (["index", "delete", "{index}", "nobody"], "nobody"),
        (["calibrate", "nowhere", "{index}", "nowhere.jsonl"], "nowhere"),
        (["eval", "{bundle}", "{index}", "{index}"], "it is not a plain file"),
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


@pytest.mark.parametrize(
    ("arguments", "who", "extra"),
    [
        (("export", "source", "bundle"), "Exporting needs", "export"),
        (("bench",), "ragengine bench needs", "bench"),
        (("bench", "index"), "ragengine bench index needs", "bench"),
        (("train", "config.toml"), "Training needs", "train"),
        (("serve",), "ragengine serve needs", "serve"),
    ],
)
def test_a_command_without_its_extra_says_what_to_install(
    arguments: tuple[str, ...], who: str, extra: str
) -> None:
    result = run(*arguments, blocked=(*EXTRA_MODULES, "matplotlib"))
    assert (result.returncode, result.stdout) == (1, "")
    assert f"ragengine: {who} the package " in result.stderr
    assert f'which is not installed; run pip install -e "{ROOT}[{extra}]"' in result.stderr
    assert (TORCH_FOR_CPU in result.stderr) == (extra != "serve")
    assert result.stderr.count("\n") == 1


def test_the_help_of_every_command_needs_no_extra() -> None:
    """Every group and command, walked in one process that has the base dependencies alone."""
    blocked = ("onnxruntime", "faiss", *EXTRA_MODULES)
    code = f"{BLOCKING.format(blocked=set(blocked))}\n{WALK}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    commands = done.stdout.splitlines()
    assert {"ragengine train", "ragengine export", "ragengine bench index", "ragengine serve"} <= {*commands}
    assert len(commands) > 15


def test_a_plot_that_cannot_be_drawn_is_said_before_anything_is_loaded() -> None:
    asked = ("ask", "no-bundle", "no-index", "q", "--plot")
    missing = run(*asked, "f.png", blocked=("matplotlib",))
    assert (missing.returncode, missing.stderr) == (
        1,
        f"ragengine: Plots need the package matplotlib, which is not installed; run {pip_install('plot')}.\n",
    )
    assert "f.gif has the suffix '.gif'" in run(*asked, "f.gif").stderr


def test_without_onnxruntime_the_remedy_is_named(pair: Pair) -> None:
    result = run("ask", pair.bundle, pair.bundle.parent / "index", "q", blocked=("onnxruntime",))
    assert result.returncode == 1
    assert f"run {pip_install('cpu')}, or on a CUDA machine {pip_install('gpu')}." in result.stderr


def test_help_lists_every_command() -> None:
    result = run("--help")
    assert result.returncode == 0
    assert all(name in result.stdout for name in ("ask", "bench", "demo", "eval", "export", "index"))
