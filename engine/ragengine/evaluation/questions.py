"""Questions with known answers, and the JSONL file they come in."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragengine.errors import PassagesError
from ragengine.evaluation.metrics import answer_pattern
from ragengine.retrieval.passages import utf8_lines
from ragengine.wording import shown


@dataclass(frozen=True)
class Question:
    """A question, what counts as a right answer, and where the answer stands if that is known.

    answers      texts that count as right; none: no document answers the question
    passage_id   the passage that holds the answer; ``passage_ids`` where several are needed
    titles       titles of the right pages, for title precision as Hugging Face's ``eval_rag`` has it
    regex        whether the answers are regular expressions, as CuratedTREC's are
    type, kind   what the question asks for and how it is worded: groups of the report
    """

    question: str
    answers: tuple[str, ...]
    passage_id: str | None = None
    passage_ids: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    type: str | None = None
    kind: str | None = None
    regex: bool = False

    @property
    def answerable(self) -> bool:
        """Whether there is a right answer at all."""
        return bool(self.answers)

    @property
    def gold_ids(self) -> frozenset[str]:
        """The ids of all passages that are known to be right."""
        single = () if self.passage_id is None else (self.passage_id,)
        return frozenset((*single, *self.passage_ids))


def read_questions(path: Path) -> list[Question]:
    """Read a JSONL file of ``{"question": str, "answers": [str, ...]}`` and the other fields of `Question`.

    Optional fields of another type than theirs are not read.  Raises :class:`PassagesError` naming the line.
    """
    questions = [
        _question(line, f"{path} line {number}")
        for number, line in enumerate(utf8_lines(path), 1)
        if line.strip()
    ]
    if not questions:
        raise PassagesError(f"{path} holds no questions.")
    return questions


def _question(line: str, where: str) -> Question:
    try:
        entry = json.loads(line)
        question, answers = entry["question"], entry["answers"]
    except (ValueError, KeyError, TypeError, RecursionError):
        entry, question, answers = {}, None, None
    if not isinstance(question, str) or not _is_texts(answers) or not _is_unicode(question, *answers):
        raise PassagesError(f'{where} is not {{"question": str, "answers": [str, ...]}}.')
    regex = entry.get("regex") is True
    if regex and (wrong := next((answer for answer in answers if not _compiles(answer)), None)) is not None:
        raise PassagesError(f"{where} has the answer {shown(wrong)}, which is no regular expression.")
    return Question(
        question,
        tuple(answers),
        passage_id=_text(entry, "passage_id"),
        passage_ids=_texts(entry, "passage_ids"),
        titles=_texts(entry, "titles"),
        type=_text(entry, "type"),
        kind=_text(entry, "kind"),
        regex=regex,
    )


def _compiles(pattern: str) -> bool:
    try:
        answer_pattern(pattern)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def _text(entry: dict[str, Any], name: str) -> str | None:
    value = entry.get(name)
    return value if isinstance(value, str) and _is_unicode(value) else None


def _texts(entry: dict[str, Any], name: str) -> tuple[str, ...]:
    values: Any = entry.get(name)
    return tuple(values) if _is_texts(values) and _is_unicode(*values) else ()


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_unicode(*texts: str) -> bool:
    """Whether no text has half a surrogate pair, which JSON can write and nothing can read."""
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
