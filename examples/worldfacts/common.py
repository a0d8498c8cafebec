"""Shared by the scripts: a passage with its facts, reading and writing files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: The seed of the corpus and its questions.
SEED = 2020
#: A line of a questions file.
Row = dict[str, Any]


@dataclass
class Passage:
    """One passage with the answers to all questions about it."""

    id: str
    kind: str
    group: str
    title: str
    text: str
    rank: float
    facts: dict[str, tuple[str, list[str]]] = field(default_factory=dict)  # type -> (reference, answers)
    codes: dict[str, str] = field(default_factory=dict)  # of an airport: iata, icao

    def ask(self, fact: str, wording: str) -> Row:
        """The question of a type in one wording, as a line of a questions file."""
        reference, answers = self.facts[fact]
        text = wording.format(x=reference, **self.codes)
        text = text[0].upper() + text[1:]
        return {"question": text, "answers": answers, "type": fact, "passage_id": self.id, "group": self.kind}


@dataclass(frozen=True)
class Text:
    """A passage of a file."""

    id: str
    text: str
    title: str


def read_texts(path: Path) -> list[Text]:
    """Read `id<TAB>text<TAB>title` with its header."""
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    assert header == "id\ttext\ttitle", path
    return [Text(*line.split("\t")) for line in lines]


def read_jsonl(path: Path) -> list[Row]:
    """Read one JSON object a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
