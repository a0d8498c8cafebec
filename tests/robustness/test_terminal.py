"""No terminal obeys what a command prints, whatever passages, questions, names and manifests say."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ragengine.cli.main import cli
from ragengine.errors import RagEngineError
from ragengine.storage.folders import MANIFEST
from ragengine_bench.parity.pairs import Pair
from tests.support.bundles import rewrite_manifest
from tests.support.project import packages
from tests.test_messages import harmless

# clipboard, clear screen, C1, title, direction, new line, back to its start, markup and emoji codes of rich
HOSTILE = "\x1b]52;c;aGk=\x07\x1b[2J\x9b2J\u202eevil\nhidden\r\x7f[red]x :smile:"
SHOWN = r"\x1b]52;c;aGk=\x07\x1b[2J\x9b2J\u202eevil\nhidden\r\x7f[red]x :smile:"

Say = Callable[..., str]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Say:
    """Run a command in a wide terminal; what it prints is harmless, in lines of its own."""
    monkeypatch.setenv("COLUMNS", "2000")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, shows: bool = True) -> str:
        done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
        printed = done.output
        if isinstance(done.exception, RagEngineError):
            printed += f"ragengine: {done.exception}\n"
        elif done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        lines = printed.split("\n")
        assert all(map(harmless, lines)), printed
        assert not any(line.lstrip().startswith("hidden") for line in lines), printed
        assert not shows or "evil" in printed
        return printed

    return run


@pytest.fixture(scope="module")
def world(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a hostile name that holds a bundle, an index and questions, hostile inside as well."""
    folder = tmp_path_factory.mktemp("world") / HOSTILE
    shutil.copytree(pair.bundle, folder / "bundle")
    count, dimension = 6, np.load(pair.checkpoint.embeddings_file).shape[1]
    np.save(folder / f"{HOSTILE}.npy", np.eye(count, dimension, dtype=np.float32))
    passages = [
        {"id": f"{HOSTILE}{row}", "title": f"{HOSTILE}{row}", "text": f"{HOSTILE} text {row}"}
        for row in range(count)
    ]
    (folder / f"{HOSTILE}.jsonl").write_text("\n".join(map(json.dumps, passages)))
    question = {"question": HOSTILE, "answers": [HOSTILE], "type": HOSTILE, "passage_id": HOSTILE}
    (folder / "questions.jsonl").write_text(json.dumps(question))
    arguments = ["index", "build", *_passages(folder), "--seed", "3"]
    done = CliRunner().invoke(cli, [*arguments[:3], str(folder / "index"), *arguments[3:]])
    assert done.exit_code == 0, done.exception
    return folder


def _passages(folder: Path) -> list[str]:
    """The passages of a world, and the options that go with them."""
    names = (f"{HOSTILE}.jsonl", "--bundle", "bundle", "--embeddings", f"{HOSTILE}.npy")
    return [name if name.startswith("--") else str(folder / name) for name in names]


def test_answers(say: Say, world: Path) -> None:
    asked = ("ask", world / "bundle", world / "index", HOSTILE)
    short = ("--max-length", 4, "--n-docs", 3)
    printed = say(*asked, *short, "--explain", "--record", "record.json")
    assert f"{SHOWN} text " in printed  # of a document
    assert printed.startswith(f"{SHOWN}\n")  # the question
    assert SHOWN in say("ask", "--replay", "record.json")
    printed = say(*asked, *short, "--json")
    (answer,) = map(json.loads, printed.splitlines())
    assert answer["question"] == HOSTILE
    assert {document["title"][:-1] for document in answer["documents"]} == {HOSTILE}
    say(*asked, "--plot", f"{HOSTILE}.pdf")
    say(*asked, "--record", world / "none" / HOSTILE)
    say(*asked, "--set", f"num_beams={HOSTILE}")
    say(*asked, "--set", f"{HOSTILE}=1", shows=False)
    say(*asked, "--set", HOSTILE.replace("=", ""))
    say("ask", "--replay", HOSTILE)


def test_demo_doctor_and_eval(say: Say, world: Path) -> None:
    assert SHOWN in say("demo", "--folder", world)
    say("demo", "--folder", HOSTILE)
    for options in ((), ("--json",)):
        say("doctor", world / "bundle", world / "index", *options)
        say("doctor", HOSTILE, *options)
        arguments = ("eval", world / "bundle", world / "index", world / "questions.jsonl", *options)
        say(*arguments, "--compare-set", "num_beams=1", "--max-length", 4)
    (world / HOSTILE).write_text(HOSTILE)
    say("eval", world / "bundle", world / "index", world / HOSTILE)
    say("eval", world / "bundle", world / "index", world / "questions.jsonl", "--label", HOSTILE, shows=False)


def test_indexes(say: Say, world: Path, tmp_path: Path) -> None:
    index = tmp_path / HOSTILE
    shutil.copytree(world / "index", index)
    assert "made from" in say("index", "info", index)
    assert SHOWN in say("index", "info", index)
    printed = say("index", "info", "--json", index)
    assert harmless(json.loads(printed)["created_from"]["passages"])  # a line by now
    say("index", "verify", index)
    say("index", "merge", index, index, tmp_path / "merged")
    say("index", "add", index, *_passages(world))
    say("index", "delete", index, f"{HOSTILE}3")
    say("index", "delete", index, HOSTILE)
    say("index", "verify", tmp_path / f"no {HOSTILE}")
    say("index", "build", tmp_path / f"no {HOSTILE}", "new", "--bundle", world / "bundle")
    say("index", "build", _passages(world)[0], "new", *_passages(world)[1:], "--factory", HOSTILE)
    say("index", "import", _passages(world)[0], "new", *_passages(world)[1:3], "--faiss", HOSTILE)
    forged = {HOSTILE: HOSTILE, "added": [HOSTILE, HOSTILE]}
    rewrite_manifest(index, created_from=forged)
    assert f"{SHOWN}: {SHOWN}, added: {SHOWN}; {SHOWN}" in say("index", "info", index)
    rewrite_manifest(index, created_by=HOSTILE, metric=HOSTILE, **{HOSTILE: HOSTILE})
    say("index", "info", index)
    (index / MANIFEST).write_text(json.dumps({"format": HOSTILE}))
    say("index", "info", index)


def test_exports(say: Say, pair: Pair, tmp_path: Path) -> None:
    say("export", HOSTILE, "out")
    source = tmp_path / HOSTILE
    shutil.copytree(pair.checkpoint.source, source)
    config = json.loads((source / "config.json").read_text())
    for changes in ({"model_type": HOSTILE}, {"architectures": [HOSTILE]}, {"generator": {HOSTILE: HOSTILE}}):
        (source / "config.json").write_text(json.dumps(config | changes))
        say("export", source, tmp_path / f"out {HOSTILE}")
    (source / "config.json").write_text(json.dumps(config))
    say("export", source, tmp_path / f"out {HOSTILE}")


@pytest.mark.parametrize(
    "content",
    [
        "x = 1",
        "",
        f"x = {'[' * 60_000}",
        f"[{json.dumps(HOSTILE)}]",
        f"[data]\npassages = {json.dumps(HOSTILE)}",
        HOSTILE,
    ],
)
def test_training(say: Say, tmp_path: Path, content: str) -> None:
    (tmp_path / f"{HOSTILE}.toml").write_text(content)
    say("train", f"{HOSTILE}.toml")
    say("train", f"no {HOSTILE}.toml")


def test_benchmarks(say: Say, world: Path) -> None:
    say("bench", "--bundle", HOSTILE, "--index", HOSTILE, "--output", HOSTILE)
    say("bench", "index", "--index", HOSTILE)
    say("bench", "--shape", HOSTILE)


@pytest.mark.parametrize("command", [[], ["ask"], ["index"], ["index", "info"], ["train"]])
def test_wrong_usage(say: Say, command: list[str]) -> None:
    say(*command, f"--evil{HOSTILE}")
    say(*command, HOSTILE, HOSTILE, shows=False)


def test_what_other_libraries_log_and_warn(tmp_path: Path) -> None:
    code = """
import logging, sys, warnings
from ragengine.cli.streams import guard_streams
guard_streams()
logging.basicConfig()
logging.getLogger("another").warning("log %s", sys.argv[1])
warnings.warn(sys.argv[1])
print("caf\\xe9 \\udcff")
"""
    done = subprocess.run([sys.executable, "-c", code, HOSTILE], capture_output=True, text=True, check=True)
    assert done.stdout == "café \\udcff\n"
    assert r"log \x1b]52;c;aGk=\x07\x1b[2J" in done.stderr
    assert done.stderr.count(r"\x1b]52;c;aGk=\x07\x1b[2J\x9b2J\u202eevil") == 2
    assert all(map(harmless, done.stderr.split("\n")))


def test_there_is_one_way_to_print() -> None:
    """Our packages print through ragengine.cli.output and ragengine.cli.console alone."""
    ways = {"output.py": {"click.echo"}, "console.py": {"rich.console.Console"}}
    for folder in packages().values():
        for file in folder.rglob("*.py"):
            allowed = ways.get(file.name, set()) if file.parent.name == "cli" else set()
            assert _prints(file) <= allowed, file


def _prints(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "rich.console":
            found |= {f"rich.console.{name.name}" for name in node.names if name.name == "Console"}
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found |= {called} & {"print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write"}
    return found
