"""What a command prints without tables: lines and JSON, safe for a terminal whatever they quote."""

import json
import re
from typing import Any

import click

from ragengine.messages import shown

_UNSAFE = re.compile(r"[^\n -~]")


def echo(text: str, *, err: bool = False) -> None:
    """Print a text as one line."""
    click.echo(shown(text), err=err)


def print_json(value: Any, *, indent: int | None = None) -> None:
    """Print JSON in UTF-8, whatever the terminal's encoding; what a terminal might obey is escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    click.echo(_UNSAFE.sub(_escaped, text).encode("utf-8"))


def _escaped(found: re.Match[str]) -> str:
    """A character of a JSON string, or its JSON escape where it is not to be shown as it is."""
    character = found.group()
    return character if shown(character) == character else json.dumps(character)[1:-1]
