"""What the site needs beside the Markdown files in `docs/`.

Some pages of the site lie outside `docs/`, where a reader of the repository looks for them (SECURITY.md, the
READMEs of the examples).  They become pages here without a second copy, and links between the two kinds are
rewritten.  A link to any other file of the repository, a test for instance, becomes its name alone: the site
does not hold that file.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from ragengine.cli.main import cli

ROOT = Path(__file__).parent.parent

PAGES = {
    "SECURITY.md": "project/security.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "benchmarks/README.md": "project/benchmarks.md",
    "examples/worldfacts/README.md": "project/worldfacts.md",
    "examples/paper/README.md": "project/paper-tables.md",
    "examples/larkfield/README.md": "project/larkfield.md",
    "examples/numpydocs/README.md": "project/numpydocs.md",
    "RELEASE.md": "project/release.md",
    "README.md": "index.md",  # the home page holds its parts; a link to the README leads there
}
"""Files of the repository outside `docs/`, and the page of the site that each becomes."""

FIGURES = {
    "examples/worldfacts/loss.png": "project/worldfacts-loss.png",
    "examples/numpydocs/documents.svg": "project/numpydocs-documents.svg",
    "examples/numpydocs/claims.svg": "project/numpydocs-claims.svg",
}

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
_FENCE = re.compile(r"^(```.*?^```|~~~.*?^~~~)\s*$", re.MULTILINE | re.DOTALL)
_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):(?=<code>)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Load every command: mkdocs-click does not find those that a group imports when they are called."""
    _load(cli)
    return config


def _load(group: click.Group) -> None:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        group.add_command(command, name)
        if isinstance(command, click.Group):
            _load(command)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and figures that lie outside `docs/`."""
    for source, target in PAGES.items():
        if target != "index.md":
            files.append(File.generated(config, target, content=(ROOT / source).read_text("utf-8")))
    for source, target in FIGURES.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point every relative link at its page of the site."""
    sources = {target: source for source, target in PAGES.items() if target != "index.md"}
    here = page.file.src_uri
    written = sources.get(here, posixpath.join("docs", here))

    def rewritten(found: re.Match[str]) -> str:
        picture, text, target = found.groups()
        path, hash_sign, anchor = target.partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return found.group()
        place = posixpath.normpath(posixpath.join(posixpath.dirname(written), path))
        inside = PAGES.get(place) or FIGURES.get(place)
        if inside is None and place.startswith("docs/"):
            inside = place.removeprefix("docs/")
        if inside is None:
            return text
        return f"{picture}[{text}]({posixpath.relpath(inside, posixpath.dirname(here))}{hash_sign}{anchor})"

    parts = _FENCE.split(markdown)
    return "".join(part if _FENCE.fullmatch(part) else _LINK.sub(rewritten, part) for part in parts)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Drop Sphinx's roles in docstrings, which Markdown shows as text."""
    return _ROLE.sub("", html)
