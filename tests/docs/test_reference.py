"""The site is built strictly, and its reference holds every command, every option and every public name."""

from __future__ import annotations

import html
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from ragengine.cli.main import cli
from tests.docs.pages import ROOT

PACKAGES = ("ragengine", "ragengine_export", "ragengine_train", "ragengine_serve")
ON_RAY = "ragengine_ray"
"""Its names need ray to be imported, but can be listed without."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """A command and those below it, with the words that call each."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, f"{path} {name}")


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    page = (site / "reference/commands.html").read_text("utf-8")
    headings = re.split(r"<h[1-6] id=", page)
    sections: dict[str, str] = {}
    for section in headings:
        usage = re.search(r"<strong>Usage:</strong>.*?<code>(.*?)</code>", section, re.S)
        if usage is not None:
            words = html.unescape(re.sub(r"<[^>]+>", "", usage[1])).split()
            called = [word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)]
            sections[" ".join(called)] = html.unescape(re.sub(r"<[^>]+>", "", section))
    found = dict(commands(cli, "ragengine"))
    assert len(found) >= 16
    assert found.keys() - sections.keys() == set()
    missing = [
        f"{path}: {option}"
        for path, command in found.items()
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for option in parameter.opts
        if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", sections[path])
    ]
    assert missing == []
    unread = [  # a "|" in a help text would break a table, for instance
        f"{path}: {parameter.help}"
        for path, command in found.items()
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        if "".join((parameter.help or "").split()) not in "".join(sections[path].split())
    ]
    assert unread == []
    assert "Sentinel" not in page, "click's own word for an option without a default"


def test_every_command_says_what_it_does(site: Path) -> None:
    assert [path for path, command in commands(cli, "ragengine") if not command.help] == []


def public_members(found: object) -> set[str]:
    """The names without an underscore that a public class has from ragengine's own classes."""
    if not isinstance(found, type):
        return set()
    ours = [cls for cls in found.__mro__ if cls.__module__.partition(".")[0] in PACKAGES]
    return {name for cls in ours for name in vars(cls) if not name.startswith("_")}


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    """By its line in the source, and with its members as headings of the built page."""
    source = (ROOT / "docs/reference/python.md").read_text("utf-8")
    listed = set(re.findall(r"^::: ([\w.]+)$", source, re.M))
    public = {
        f"{package}.{name}": getattr(importlib.import_module(package), name)
        for package in PACKAGES
        for name in importlib.import_module(package).__all__
    }
    assert len(public) >= 18
    assert public.keys() - listed == set()
    page = (site / "reference/python.html").read_text("utf-8")
    ids = set(re.findall(r'<h[1-6] id="([\w.]+)"', page))
    assert public.keys() - ids == set()
    members = {f"{name}.{member}" for name, found in public.items() for member in public_members(found)}
    assert "ragengine.RagEngine.close" in members
    assert members - ids == set()


def test_the_names_on_ray_are_in_the_reference(site: Path) -> None:
    public = {f"{ON_RAY}.{name}" for name in importlib.import_module(ON_RAY).__all__}
    page = (site / "reference/python.html").read_text("utf-8")
    assert public - set(re.findall(r'<h[1-6] id="([\w.]+)"', page)) == set()


def test_versioning_names_everything_that_is_covered() -> None:
    page = (ROOT / "docs/reference/versioning.md").read_text("utf-8")
    covered, _ = page.split("## Answers")
    named = set(re.findall(r"`(?:\w+\.)*(\w+)`", covered))
    public = {name for package in (*PACKAGES, ON_RAY) for name in importlib.import_module(package).__all__}
    assert len(public) >= 60
    assert public - named == set()


def documented_parameters(function: Callable[..., object]) -> list[str]:
    """The names under ``Args:`` in a docstring; one line may document several: ``deadline, cancel:``."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", inspect.getdoc(function) or "", re.M)
    lines = re.findall(r"^    (\S[^:\n]*):", section[1], re.M) if section else []
    return [name.strip().lstrip("*") for line in lines for name in line.split(",")]


def public_functions() -> Iterator[tuple[str, Callable[..., object]]]:
    """The public functions, and the methods of the public classes."""
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            found = getattr(module, name)
            names = public_members(found)
            yield from (
                (f"{name}.{one}", getattr(found, one)) for one in names if callable(getattr(found, one))
            )
            if not isinstance(found, type):
                yield name, found


def test_documented_parameters_are_those_of_the_function() -> None:
    """mkdocstrings' own check does not know that a line may name two."""
    wrong = {
        name: sorted(unknown)
        for name, function in public_functions()
        if (unknown := set(documented_parameters(function)) - inspect.signature(function).parameters.keys())
    }
    assert wrong == {}
    assert sum(bool(documented_parameters(function)) for _, function in public_functions()) >= 8


def test_a_parameter_that_does_not_exist_is_found() -> None:
    def function(first: int, **rest: int) -> None:
        """Nothing.

        Args:
            first, second: a number and
                another: one.
            **rest: others.

        Returns:
            nothing: at all.
        """

    assert documented_parameters(function) == ["first", "second", "rest"]


def test_the_site_takes_nothing_from_elsewhere(site: Path) -> None:
    """No font, script, style or picture comes from another host."""
    elsewhere = re.compile(
        r"""<(?:script|img|iframe)[^>]+src=["']?https?://|<link[^>]+href=["']?https?://[^>]+stylesheet"""
    )
    styles = re.compile(r"url\(\s*[\"']?https?://|@import\s+[\"']https?://")
    pages, sheets = list(site.rglob("*.html")), list(site.rglob("*.css"))
    assert len(pages) >= 25
    assert len(sheets) >= 2
    assert [page.name for page in pages if elsewhere.search(page.read_text("utf-8"))] == []
    assert [sheet.name for sheet in sheets if styles.search(sheet.read_text("utf-8"))] == []


def test_pages_from_outside_docs_are_part_of_the_site(site: Path) -> None:
    """And their links lead to pages of the site."""
    security = (site / "project/security.html").read_text("utf-8")
    assert "What is trusted, and what is not" in security
    versioning = (site / "reference/versioning.html").read_text("utf-8")
    assert 'href="../project/changelog.html"' in versioning
    assert "](" not in re.sub(r"(?s)<(pre|code).*?</\1>", "", security)
