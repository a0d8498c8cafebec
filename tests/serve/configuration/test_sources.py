"""Flags, environment and file: the first that says something wins, and wrong ones are named."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ragengine_serve.cli import serve
from ragengine_serve.configuration.settings import SETTINGS, ModelFolders, Settings
from ragengine_serve.configuration.sources import (
    folders_of,
    from_json,
    models_of_environment,
    read_settings,
    to_json,
    variable,
)
from ragengine_serve.errors import SettingsError
from tests.support.paths import WORLDFACTS

EVERY: dict[str, tuple[Any, str, Any]] = {
    "host": ("0.0.0.0", "0.0.0.0", "0.0.0.0"), "port": (1, "1", 1), "uds": ("/s", "/s", Path("/s")),
    "workers": (2, "2", 2), "threads": (3, "3", 3), "device": ("cpu", "cpu", "cpu"),
    "search_device": ("cpu", "cpu", "cpu"), "verify": ("size", "size", "size"),
    "api_key_file": ("k", "k", Path("k")), "admin_key_file": ("a", "a", Path("a")),
    "index_root": ("r", "r", Path("r")),
    "cors_allow_origin": (["https://a.b", "http://c"], "https://a.b,http://c", ("https://a.b", "http://c")),
    "max_concurrent_requests": (4, "4", 4), "max_queue": (0, "0", 0), "max_batch": (5, "5", 5),
    "max_generation_batch": (6, "6", 6), "max_questions": (7, "7", 7), "max_request_bytes": (8, "8", 8),
    "max_n_docs": (9, "9", 9), "max_num_beams": (10, "10", 10), "max_new_tokens": (11, "11", 11),
    "default_deadline_ms": (12, "12", 12), "request_timeout": (13, "13", 13), "drain_timeout": (0, "0", 0),
    "shard": ("d", "d", Path("d")), "remote_shards": (True, "true", True),
    "allow_partial": (True, "yes", True),
    "shard_timeout_ms": (15, "15", 15), "shard_hedge_ms": (0, "0", 0),
    "shard_key_file": ("f", "f", Path("f")),
    "shard_ca_file": ("f", "f", Path("f")),
    "cache_answers": (14, "14", 14), "log_questions": (True, "true", True),
    "log_level": ("error", "error", "error"), "otel_endpoint": ("http://o", "http://o", "http://o"),
}  # fmt: skip
"""Of each setting: its value in the file and in the environment, and as a setting."""


def write(path: Path, lines: dict[str, Any]) -> Path:
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items()), "utf-8")
    return path


def test_every_setting_is_a_line_of_the_file_a_variable_and_a_flag(tmp_path: Path) -> None:
    assert EVERY.keys() == {spec.name for spec in SETTINGS}
    expected = {name: value for name, (_, _, value) in EVERY.items()}
    file = write(tmp_path / "serve.toml", {name: value for name, (value, _, _) in EVERY.items()})
    environment = {variable(name): text for name, (_, text, _) in EVERY.items()}
    for settings in (
        read_settings({"config": file}, {}),
        read_settings({}, {"RAGENGINE_CONFIG": str(file)}),
        read_settings({}, environment),
    ):
        assert {name: getattr(settings, name) for name in EVERY} == expected
        assert from_json(json.loads(json.dumps(to_json(settings)))) == settings
    options = {option for parameter in serve.params for option in parameter.opts}
    assert {f"--{name.replace('_', '-')}" for name in EVERY} <= options


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "serve.toml", {"port": 1, "workers": 2, "threads": 3})
    settings = read_settings(
        {"config": file, "port": 0, "workers": None}, {"RAGENGINE_PORT": "7", "RAGENGINE_WORKERS": "8"}
    )
    assert (settings.port, settings.workers, settings.threads) == (0, 8, 3)


def test_models_come_from_the_file_relative_to_it(tmp_path: Path) -> None:
    first, second = 'bundle = "a/bundle"\nindex = "a/index"\n', 'name = "b"\nbundle = "x"\nindex = "y"\n'
    lines = f"[[models]]\n{first}[[models]]\n{second}"
    (tmp_path / "serve.toml").write_text(lines)
    models = read_settings({"config": tmp_path / "serve.toml"}, {}).models
    assert [model.name for model in models] == ["a", "b"]
    assert models[0].bundle == tmp_path / "a" / "bundle"
    own = (ModelFolders("c", Path("c"), Path("d")),)
    assert read_settings({"config": tmp_path / "serve.toml"}, {}, own).models == own


def test_a_model_of_the_environment() -> None:
    (model,) = models_of_environment({"RAGENGINE_BUNDLE": "m/bundle", "RAGENGINE_INDEX": "m/index"})
    assert model.name == "m"
    assert models_of_environment({}) == ()
    with pytest.raises(SettingsError, match="go together"):
        models_of_environment({"RAGENGINE_BUNDLE": "m"})
    assert folders_of(Path("some-model"), Path("i")).name == "some-model"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "did you mean 'port'"),
        ("port = '1'", "a whole number"),
        ("port = true", "a whole number"),
        ("log_questions = 1", "true or false"),
        ("device = 'gpu'", "'auto' or 'cpu' or 'cuda'"),
        ("host = 3", "a string"),
        ("cors_allow_origin = 'https://a'", "a list of strings"),
        ("port", "cannot be read"),
        ("models = 3", r"not \[\[models\]\]"),
        ("[[models]]\nbundle = 'a'", r"not \[\[models\]\]"),
        ("[[models]]\nbundle = 1\nindex = 'a'", r"not \[\[models\]\]"),
        ("[[models]]\nbundle = 'a'\nindex = 'b'\nother = 'c'", r"not \[\[models\]\]"),
        ("[[models]]\nname = 'a b'\nbundle = 'a'\nindex = 'b'", "The model's name is 'a b'"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "serve.toml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_settings({"config": tmp_path / "serve.toml"}, {})


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RAGENGINE_PORT": "x"}, "RAGENGINE_PORT is 'x'; it must be a whole number"),
        ({"RAGENGINE_LOG_QUESTIONS": "maybe"}, "true or false"),
        ({"RAGENGINE_VERIFY": "md5"}, "'sha256' or 'size'"),
    ],
)
def test_a_wrong_variable_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings({}, environment)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"port": 70000, "workers": 0}, "workers is 0, it must be at least 1; port is 70000"),
        ({"admin_key_file": Path("a")}, "without index_root"),
        ({"cors_allow_origin": ("example.org",)}, "must be an origin"),
        ({"models": (ModelFolders("a", Path("x"), Path("y")),) * 2}, "two models are named a"),
        ({"max_queue": -1}, "max_queue is -1"),
    ],
)
def test_settings_check_themselves(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings(**changes)


def test_threads_and_executors_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    def sizes(cores: int, **changes: Any) -> tuple[int, int]:
        monkeypatch.setattr("ragengine_serve.configuration.settings.available_cores", lambda: cores)
        settings = dataclasses.replace(Settings(), **changes)
        return settings.graph_threads, settings.executors

    assert sizes(1) == (1, 1)
    assert sizes(2) == (1, 2)
    assert sizes(16) == (8, 2)
    assert sizes(16, workers=4) == (2, 2)
    assert sizes(16, threads=4) == (4, 4)
    assert sizes(16, threads=4, max_concurrent_requests=1) == (4, 1)
    assert Settings().generation_batch("cpu") == 1
    assert Settings().generation_batch("cuda") == 8


def test_the_command_needs_both_folders_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "give BUNDLE and INDEX" in CliRunner().invoke(serve, ["only-a-bundle"]).output
    served: list[Settings] = []
    monkeypatch.setattr("ragengine_serve.cli.run", served.append)
    for arguments in (
        ["b/bundle", "b/index", "--port", "0", "--log-questions"],
        ["--model-name", "mine"],
        [],
    ):
        assert CliRunner().invoke(serve, arguments).exit_code == 0
    assert served[0].models == (ModelFolders("b", Path("b/bundle"), Path("b/index")),)
    assert (served[0].port, served[0].log_questions) == (0, True)
    assert [settings.models[0].name for settings in served[1:]] == ["mine", "worldfacts"]
    assert served[2].models[0].bundle == WORLDFACTS / "bundle"
