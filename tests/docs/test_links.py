"""Links, anchors and paths on the pages lead somewhere."""

from __future__ import annotations

import importlib
import re
from functools import cache
from pathlib import Path

import pytest

from ragengine.errors import DependencyError
from tests.docs.pages import ROOT, all_pages, name_of

_FENCED = re.compile(r"^(`{3,}).*?^\1[ \t]*$", re.M | re.S)
_CODE = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^(#{1,6}) +(.+?) *#*$", re.M)
_PATH = re.compile(r"`((?:tests|docs|examples|benchmarks|engine|export|training)/[\w./-]*[\w/])`")
_MODULE = re.compile(r"`(ragengine(?:_export|_train|_bench)?(?:\.\w+)+)`")
_PAGES = all_pages()
_PRESENT = [page for page in _PAGES if page.name != "CHANGELOG.md"]  # which names what was, too


def prose(page: Path) -> str:
    """The text of a page without its fenced blocks."""
    return _FENCED.sub("", page.read_text("utf-8"))


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub and the site make them alike."""
    found: set[str] = set()
    for _, title in _HEADING.findall(prose(page)):
        text = re.sub(r"[`*]|\]\([^)]*\)|\[", "", title).lower()
        anchor = re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")
        found.add(re.sub(r"-+", "-", anchor))
    return frozenset(found)


def broken(page: Path) -> list[str]:
    """The relative links of a page that lead nowhere."""
    wrong = []
    for target in _LINK.findall(_CODE.sub("", prose(page))):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        if not place.exists() or (anchor and anchor not in anchors(place)):
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("page", _PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    assert broken(page) == []


@pytest.mark.parametrize("page", _PRESENT, ids=name_of)
def test_named_paths_exist(page: Path) -> None:
    """`tests/...` and the like in a page's text are files or folders of the repository."""
    assert [path for path in _PATH.findall(prose(page)) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", _PRESENT, ids=name_of)
def test_named_modules_exist(page: Path) -> None:
    """`ragengine.generation.batching` in a page's text can be imported, or is a name of such a module."""
    assert [name for name in sorted(set(_MODULE.findall(prose(page)))) if not _importable(name)] == []


def _importable(name: str) -> bool:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        except DependencyError:  # an adapter, whose framework is not installed here
            return length == len(parts)
        for part in parts[length:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_every_page_is_in_the_navigation() -> None:
    """mkdocs warns of the opposite."""
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert len(pages) >= 25
    assert [page for page in pages if f": {page}\n" not in navigation] == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    links = "[a](page.md#one-title) [b](#one-title) [c](#two) [d](gone.md) `[e](gone.md)`"
    page.write_text(f"# One title\n{links}\n")
    assert broken(page) == ["#two", "gone.md"]
    assert not _importable("ragengine.nothing")
    assert not _importable("ragengine.errors.NothingError")
    assert _importable("ragengine.errors.InputError")


def test_every_error_has_its_section_in_troubleshooting() -> None:
    errors = importlib.import_module("ragengine.errors")
    names = {name for name, value in vars(errors).items() if isinstance(value, type)} - {"RagEngineError"}
    headings = _HEADING.findall(prose(ROOT / "docs/troubleshooting.md"))
    sections = {title for level, title in headings if level == "##"}
    assert sections == names
