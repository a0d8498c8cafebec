"""Questions with known answers, and the JSONL file that holds them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragengine.errors import PassagesError
from ragengine.evaluation.metrics import answer_pattern
from ragengine.messages import short_repr
from ragengine.storage.foreign_files import json_lines

_RIGHT = ("passage_id", "passage_ids", "passage", "titles")  # fields that say what is right without an answer


@dataclass(frozen=True)
class Question:
    """A question, its right answers, and the passages that hold them if these are known.

    answers       texts that count as right; none where no document answers the question, or none is known
    passage_id    the passage that holds the answer
    passage_ids   the right passages, where one is not enough or several are
    titles        titles of the right pages, for the title precision of Hugging Face's ``eval_rag``
    type, kind    what the question asks for, and how it is worded: groups of the report
    regex         whether the answers are regular expressions, as CuratedTREC's are
    answers_known  whether ``answers`` are all; False where only right passages or titles are known (BEIR)
    """

    question: str
    answers: tuple[str, ...]
    passage_id: str | None = None
    passage_ids: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    type: str | None = None
    kind: str | None = None
    regex: bool = False
    answers_known: bool = True

    @property
    def answerable(self) -> bool:
        """Whether something is known to be right: an answer, or the passages that hold one."""
        return bool(self.answers) or not self.answers_known

    @property
    def worded(self) -> bool:
        """Whether its answers are texts, whose words can be counted."""
        return bool(self.answers) and not self.regex

    @property
    def gold_ids(self) -> frozenset[str]:
        """The ids of the passages that are known to hold the answer."""
        single = () if self.passage_id is None else (self.passage_id,)
        return frozenset((*single, *self.passage_ids))


def read_questions(path: Path) -> list[Question]:
    """Read a JSONL file whose lines are objects with the fields of :class:`Question`.

    Raises:
        PassagesError: the file cannot be read, is empty, or a line is wrong; names the line.
    """
    questions = [
        parse_question(line, f"{path} line {number}") for number, line in json_lines(path, PassagesError)
    ]
    if not questions:
        raise PassagesError(f"{path} holds no questions; write one JSON object a line.")
    return questions


def question_entry(line: str, where: str) -> dict[str, Any]:
    """Read the object of one line, with a text as ``question`` and a list of texts as ``answers``.

    A line that names right passages or titles may have no ``answers``; they are then None here.

    Raises:
        PassagesError: it is not such an object; the message begins with ``where``.
    """
    try:
        entry = json.loads(line)
        question, answers = entry["question"], entry.get("answers")
        if answers is None and not any(entry.get(name) for name in _RIGHT):
            raise KeyError("answers")
    except (ValueError, KeyError, TypeError, RecursionError):
        entry, question, answers = {}, None, None
    texts = [] if answers is None and isinstance(question, str) else answers
    if not isinstance(question, str) or not _is_texts(texts) or not _is_unicode(question, *texts):
        raise PassagesError(f'{where} is not {{"question": str, "answers": [str, ...]}}.')
    return {**entry, "answers": answers}


def texts_of(entry: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    """An optional field that holds a list of texts; raises :class:`PassagesError` for anything else."""
    values: Any = entry.get(name)
    if values is None:
        return ()
    if not _is_texts(values) or not _is_unicode(*values):
        raise PassagesError(f'{where}: "{name}" is {short_repr(values)}; write a list of strings.')
    return tuple(values)


def text_of(entry: dict[str, Any], name: str, where: str) -> str | None:
    """An optional field that holds a text; raises :class:`PassagesError` for anything else."""
    value = entry.get(name)
    if value is not None and not (isinstance(value, str) and _is_unicode(value)):
        raise PassagesError(f'{where}: "{name}" is {short_repr(value)}; write a string.')
    return value


def parse_question(line: str, where: str) -> Question:
    """The question of one line; raises :class:`PassagesError`, whose message begins with ``where``."""
    entry = question_entry(line, where)
    question, answers, regex = entry["question"], entry["answers"] or (), entry.get("regex", False)
    if not isinstance(regex, bool):
        raise PassagesError(f'{where}: "regex" is {short_repr(regex)}; write true or false.')
    if regex and (wrong := next((answer for answer in answers if not _compiles(answer)), None)) is not None:
        raise PassagesError(
            f"{where} has the answer {short_repr(wrong)}, which is not a regular expression (in NFD); "
            "mend it, or leave out regex."
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
        answers_known=entry["answers"] is not None,
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
    """Whether no text holds half a surrogate pair, which JSON can write but UTF-8 cannot encode."""
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
