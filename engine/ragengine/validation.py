"""Checks of what a call is given, before anything is computed: questions, answers, labels, texts."""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from ragengine.errors import InputError
from ragengine.messages import short_repr

LONGEST_TEXT = 1_000_000
"""Characters of a question, an answer, or a document given by the caller.

A tokenizer reads all of a text before it cuts: a million characters took it 4 seconds and 150 MB, ten million
40 seconds and 1.4 GB (docs/reference/requests.md).
"""


def checked_questions(question: Any) -> list[str]:
    """One question or several, as a list.  Raises :class:`InputError` that names the first wrong one."""
    if isinstance(question, str):
        return [checked_text("The question", question)]
    questions = as_list(question, "A question", "a str, or a list of them")
    return [checked_text(f"Question {number}", one) for number, one in enumerate(questions)]


def checked_question(question: Any) -> str:
    """The question of a call that takes one."""
    return checked_text("The question", question)


def checked_text(what: str, text: Any) -> str:
    """``text``, if it is Unicode text of at most ``LONGEST_TEXT``; ``what`` names it in the error."""
    if not isinstance(text, str):
        raise InputError(f"{what} is {type(text).__name__}; it must be a str.")
    if len(text) > LONGEST_TEXT:
        raise InputError(
            f"{what} has {len(text)} characters, at most {LONGEST_TEXT} are read; split or shorten it."
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as reason:
        raise InputError(
            f"{what} has half a surrogate pair at character {reason.start}, which is not Unicode text; "
            "remove lone surrogates."
        ) from reason
    return text


def checked_metadata(what: str, metadata: Any) -> Mapping[str, str]:
    """``metadata`` of a document, if it is a mapping of texts to texts; ``what`` names it in the error."""
    if not isinstance(metadata, Mapping):
        raise InputError(f"{what} is {type(metadata).__name__}; it must be a mapping of texts to texts.")
    for name, value in metadata.items():
        checked_text(f"{what}: a field's name", name)
        checked_text(f"{what}: the field {short_repr(name)}", value)
    return metadata


def checked_answers(answer: Any, questions: int, *, single: bool) -> list[Any]:
    """Answers to be scored, a str or token ids for each of ``questions``; ``single`` is one for one."""
    answers = [answer] if single else as_list(answer, "answer", "a list, one for each question")
    if len(answers) != questions:
        raise InputError(f"There are {len(answers)} answers for {questions} questions; give one each.")
    for number, one in enumerate(answers):
        if isinstance(one, str):
            checked_text(f"Answer {number}", one)
    return answers


def checked_labels(labels: Any) -> list[str]:
    """The labels of a classification: different texts, at least one."""
    chosen = as_list(labels, "labels", "a list of different strings")
    if not chosen or not all(isinstance(label, str) for label in chosen) or len(set(chosen)) < len(chosen):
        raise InputError(
            f"labels is {short_repr(labels)}; it must be a list of different strings, at least one."
        )
    return [checked_text(f"Label {number}", label) for number, label in enumerate(chosen)]


def checked_flag(name: str, value: Any) -> bool | None:
    """A setting that is True, False, or None for the model's own."""
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{name} is {type(value).__name__}; it must be True, False or None.")
    return value


def check_whole_number(name: str, value: Any, least: int = 1, most: int | None = None) -> None:
    """Raise :class:`InputError` unless ``value`` is an ``int``, at least ``least`` and at most ``most``."""
    if type(value) is not int or value < least or (most is not None and value > most):
        limit = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{name} is {short_repr(value)}; it must be a whole number {limit}.")


def as_list(values: Any, what: str, expected: str) -> list[Any]:
    """The values of a list, or of another iterable that has an order and is not a text."""
    # a mapping or a set iterates too, but not over the values that were meant, or in no order
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | bytearray | Mapping | Set):
        raise InputError(f"{what} is {type(values).__name__}; it must be {expected}.")
    if not isinstance(values, Sequence) and getattr(values, "ndim", 1) == 0:  # an array without an axis
        raise InputError(f"{what} is a {type(values).__name__} without an axis; it must be {expected}.")
    return list(values)
