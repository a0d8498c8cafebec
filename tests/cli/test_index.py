"""``ragengine index`` says what the Python functions say: the same options, words and defaults."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import ragengine
from ragengine import IndexManifest, shard_index
from ragengine.cli.index import index as index_command
from ragengine.cli.main import cli
from ragengine.errors import RagEngineError
from ragengine.retrieval.index import PassageIndex
from tests.support.bundles import random_vectors, rewrite_manifest
from tests.support.paths import WORLDFACTS

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "build": ragengine.build_index,
    "add": ragengine.add_passages,
    "delete": ragengine.delete_passages,
    "merge": ragengine.merge_indexes,
    "shard": ragengine.shard_index,
    "addresses": ragengine.set_shard_addresses,
    "import": ragengine.import_index,
    "verify": ragengine.verify_index,
    "sync": ragengine.sync_index,
    "upsert": ragengine.upsert_passages,
    "compact": ragengine.compact_index,
    "list": ragengine.list_passages,
    "show": ragengine.show_passages,
}
OF_A_STEP = {"train_only", "shard", "gather"}
"""Options of build that call another function (tests/indexing/test_shards_apart.py)."""
OF_THE_TERMINAL = {"as_json", "watch", "every"}
"""Options that say how a command prints, or when it runs again."""


def command(name: str) -> click.Command:
    found = index_command.get_command(click.Context(index_command), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_command_has_the_words_of_its_function(name: str) -> None:
    parameters = inspect.signature(FUNCTIONS[name]).parameters
    positional = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    arguments = [p.name for p in command(name).params if isinstance(p, click.Argument)]
    assert arguments == positional
    options = [p for p in command(name).params if isinstance(p, click.Option)]
    options = [option for option in options if option.name not in OF_THE_TERMINAL | OF_A_STEP]
    least = ["x"] * len(arguments) + [word for o in options if o.required for word in (o.opts[0], "1")]
    values = command(name).make_context(name, least).params
    for option in options:
        assert option.name is not None
        assert f"--{option.name.replace('_', '-')}" in option.opts
        if (
            option.name == "force" and name != "sync"
        ):  # a typed path may be wrong: the command asks, a program means it
            assert (values["force"], parameters["force"].default) == (False, True)
            continue
        default = parameters[option.name].default
        assert default is inspect.Parameter.empty if option.required else values[option.name] == default


def test_every_command_has_a_function() -> None:
    commands = set(index_command.list_commands(click.Context(index_command)))
    # these are IndexManifest.read and Retriever.search
    assert commands - FUNCTIONS.keys() == {"info", "search"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_says_what_it_takes_returns_and_raises(name: str) -> None:
    function = FUNCTIONS[name]
    text = inspect.getdoc(function) or ""
    parts = text.split("\n\n")
    assert "\n" not in parts[0]
    assert parts[0].endswith(".")
    for section in ("Args:", "Returns:", "Raises:"):
        assert sum(part.startswith(section) for part in parts) == 1, section
    (arguments,) = (part for part in parts if part.startswith("Args:"))
    for parameter in inspect.signature(function).parameters:
        assert f"\n    {parameter}: " in arguments
    (raises,) = (part for part in parts if part.startswith("Raises:"))
    named = [line.split(":")[0].strip() for line in raises.splitlines()[1:] if line.startswith("    ")]
    errors = [error for error in named if error.endswith("Error")]
    assert errors
    assert all(issubclass(getattr(ragengine.errors, error), RagEngineError) for error in errors)


def test_what_python_returns_is_what_is_stored(
    tmp_path: Path, build: Callable[..., Path], bundle: Path
) -> None:
    path = build(random_vectors(300), factory="IVF4,PQ2x4", recall=0.5)
    phases: list[str] = []
    manifest = ragengine.verify_index(path, progress=lambda phase, done, total: phases.append(phase))
    assert manifest == IndexManifest.read(path)
    assert list(dict.fromkeys(phases)) == ["vectors", "exact"]
    assert manifest.recall_reached
    assert ragengine.delete_passages(path, ["id3"]) == IndexManifest.read(path)
    unreached = build(random_vectors(3000), factory="PCA1,Flat")
    assert not IndexManifest.read(unreached).recall_reached
    assert build(random_vectors(20)) == unreached
    assert IndexManifest.read(unreached).recall_reached


def test_verify_reports_on_stderr_alone(build: Callable[..., Path]) -> None:
    path = build(random_vectors(20))
    result = CliRunner().invoke(index_command, ["verify", str(path)])
    assert result.stdout == f"{path} is whole: 20 passages of 8 dimensions.\n"
    assert "vectors" in result.stderr


def test_info_prints_the_manifest_of_the_file(tmp_path: Path, build: Callable[..., Path]) -> None:
    whole = build(random_vectors(60))
    shard_index(whole, tmp_path / "shards", shards=2)
    for folder, name in ((whole, "manifest.json"), (tmp_path / "shards", "shards.json")):
        result = CliRunner().invoke(index_command, ["info", str(folder), "--json"])
        assert json.loads(result.stdout) == json.loads((folder / name).read_text())


def test_the_table_names_the_folder_and_what_it_was_made_from(
    tmp_path: Path, build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build(random_vectors(60))
    rewrite_manifest(path, created_from={"passages": "a.tsv", "added": ["b.tsv", "c.tsv"], "deleted": 2})
    monkeypatch.setenv("COLUMNS", "300")
    printed = CliRunner().invoke(index_command, ["info", str(path)]).output
    assert printed.splitlines()[0].strip() == str(path)
    assert "passages: a.tsv, added: b.tsv; c.tsv, deleted: 2" in printed


def test_an_index_is_replaced_only_with_force(tmp_path: Path) -> None:
    passages, index = tmp_path / "p.jsonl", tmp_path / "index"
    build = [
        "index",
        "build",
        str(passages),
        str(index),
        "--bundle",
        str(WORLDFACTS / "bundle"),
        "--threads",
        "1",
    ]

    def run(*words: str, title: str) -> Result:
        passages.write_text(f'{{"id": "1", "title": "{title}", "text": "text"}}\n')
        return CliRunner().invoke(cli, [*build, *words])

    assert run(title="first").exit_code == 0
    for words in ((), ("--resume",)):
        refused = run(*words, title="second")
        assert refused.exit_code == 1
        assert f"{index} exists; give --force to replace it" in str(refused.exception)
        assert refused.output == ""  # no empty line of bars that never began
    merge = CliRunner().invoke(cli, ["index", "merge", str(index), str(index), str(index)])
    assert "exists; give --force" in str(merge.exception)
    assert run("--force", title="third").exit_code == 0
    with PassageIndex.open(index) as opened:
        assert [passage.title for passage in opened.passages([0])] == ["third"]


def test_watching_ends_where_its_first_sync_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A text.")
    arguments = ["sync", tmp_path / "a.txt", tmp_path / "absent", "--bundle", tmp_path / "b", "--watch"]
    done = CliRunner().invoke(index_command, list(map(str, arguments)))
    assert isinstance(done.exception, RagEngineError)
