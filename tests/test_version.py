"""The version is the one that the package's metadata, pyproject.toml and the command line say."""

import importlib
import importlib.metadata
import tomllib

import pytest
from click.testing import CliRunner

import ragengine
from ragengine import version
from ragengine.cli.main import cli
from tests.support.paths import ROOT


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert ragengine.__version__ == project["version"]
    assert CliRunner().invoke(cli, ["--version"]).output == f"ragengine, version {ragengine.__version__}\n"
    assert "__version__" in dir(ragengine)


def test_a_source_tree_that_is_not_installed_has_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patched:
        patched.setattr(importlib.metadata, "version", absent)
        assert importlib.reload(version).__version__ == "0+unknown"
    assert importlib.reload(version).__version__ == ragengine.__version__ != "0+unknown"
