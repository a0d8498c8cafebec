"""The questions of a file: JSONL objects or plain lines."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragengine.errors import InputError, PassagesError
from ragengine.messages import short_repr
from ragengine.storage.foreign_files import json_lines
from ragengine.storage.unpacking import GZIP_SUFFIX
from ragengine.validation import checked_text

_JSON_SUFFIXES = {".jsonl", ".ndjson", ".json"}


@dataclass(frozen=True)
class FileQuestion:
    """One question, its line in the file (counted from 1), and the id that it has there."""

    line: int
    id: str | int | None
    question: str


def read_file_questions(path: Path) -> list[FileQuestion]:
    """Read one question a line; blank lines are left out.

    The file is JSONL if its name says so or its first line begins with a brace.  Its objects have a text as
    ``question`` and may have an ``id``, a text or a whole number; other fields, such as those of
    ``ragengine eval``, are ignored.  In any other file each line is a question.

    Raises:
        PassagesError: the file cannot be read, is empty, or a line is wrong; names the line.
    """
    questions = list(_read(path))
    if not questions:
        raise PassagesError(f"{path} holds no questions; write one a line.")
    return questions


def _read(path: Path) -> Iterator[FileQuestion]:
    name = path.with_suffix("") if path.suffix.lower() == GZIP_SUFFIX else path
    is_json: bool | None = name.suffix.lower() in _JSON_SUFFIXES or None
    for number, line in json_lines(path, PassagesError):
        text, where = line.strip(), f"{path} line {number}"
        if is_json is None:
            is_json = text.startswith("{")
        if not is_json and text.startswith("{"):
            raise PassagesError(
                f"{where} begins with a brace among plain lines; put JSON on all lines, or on none."
            )
        entry = _entry(text, where) if is_json else {"question": text}
        try:
            question = checked_text("the question", entry["question"])
            if isinstance(id := entry.get("id"), str):
                checked_text("the id", id)
        except InputError as reason:
            raise PassagesError(f"{where}: {reason}") from reason
        yield FileQuestion(number, id, question)


def _entry(text: str, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict) or not isinstance(entry.get("question"), str):
        raise PassagesError(f'{where} is not {{"question": str}}; mend the line or remove it.')
    id = entry.get("id")
    if id is not None and type(id) not in (str, int):
        raise PassagesError(f'{where}: "id" is {short_repr(id)}; write a string or a whole number.')
    return entry
