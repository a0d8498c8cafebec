"""Questions with known answers, and the JSONL file they come in."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragengine.corpus.passage import utf8_lines
from ragengine.errors import PassagesError
from ragengine.evaluation.metrics import answer_pattern
from ragengine.messages import short_repr


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
    def worded(self) -> bool:
        """Whether its answers are texts with words that can be counted."""
        return self.answerable and not self.regex

    @property
    def gold_ids(self) -> frozenset[str]:
        """The ids of all passages that are known to be right."""
        single = () if self.passage_id is None else (self.passage_id,)
        return frozenset((*single, *self.passage_ids))


def read_questions(path: Path) -> list[Question]:
    """Read a JSONL file of ``{"question": str, "answers": [str, ...]}`` and the other fields of `Question`.

    Raises :class:`PassagesError` naming the line.
    """
    questions = [
        _question(line, f"{path} line {number}")
        for number, line in enumerate(utf8_lines(path), 1)
        if line.strip()
    ]
    if not questions:
        raise PassagesError(f"{path} holds no questions.")
    return questions


def question_entry(line: str, where: str) -> dict[str, Any]:
    """The object of one line, whose ``question`` is a text and whose ``answers`` are a list of texts.

    Raises :class:`PassagesError` that begins with ``where``.
    """
    try:
        entry = json.loads(line)
        question, answers = entry["question"], entry["answers"]
    except (ValueError, KeyError, TypeError, RecursionError):
        entry, question, answers = {}, None, None
    if not isinstance(question, str) or not _is_texts(answers) or not _is_unicode(question, *answers):
        raise PassagesError(f'{where} is not {{"question": str, "answers": [str, ...]}}.')
    return dict(entry)


def texts_of(entry: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    """An optional field that is a list of texts; raises :class:`PassagesError` where it is something else."""
    values: Any = entry.get(name)
    if values is None:
        return ()
    if not _is_texts(values) or not _is_unicode(*values):
        raise PassagesError(f'{where}: "{name}" is {short_repr(values)}; write a list of strings.')
    return tuple(values)


def text_of(entry: dict[str, Any], name: str, where: str) -> str | None:
    """An optional field that is a text; raises :class:`PassagesError` where it is something else."""
    value = entry.get(name)
    if value is not None and not (isinstance(value, str) and _is_unicode(value)):
        raise PassagesError(f'{where}: "{name}" is {short_repr(value)}; write a string.')
    return value


def _question(line: str, where: str) -> Question:
    entry = question_entry(line, where)
    question, answers, regex = entry["question"], entry["answers"], entry.get("regex", False)
    if not isinstance(regex, bool):
        raise PassagesError(f'{where}: "regex" is {short_repr(regex)}; write true or false.')
    if regex and (wrong := next((answer for answer in answers if not _compiles(answer)), None)) is not None:
        raise PassagesError(
            f"{where} has the answer {short_repr(wrong)}, which is no regular expression (in NFD)."
        )
    return Question(
        question,
        tuple(answers),
        passage_id=text_of(entry, "passage_id", where),
        passage_ids=texts_of(entry, "passage_ids", where),
        titles=texts_of(entry, "titles", where),
        type=text_of(entry, "type", where),
        kind=text_of(entry, "kind", where),
        regex=regex,
    )


def _compiles(pattern: str) -> bool:
    try:
        answer_pattern(pattern)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_unicode(*texts: str) -> bool:
    """Whether no text has half a surrogate pair, which JSON can write and nothing can read."""
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
