"""What is written of each question: its answer, or the error that it failed with."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ragengine.engine import RagEngine
from ragengine.errors import DeadlineError, GraphOutputError, MemoryLimitError, RagEngineError
from ragengine.results import Answer

OWN_FAILURES: Final = (DeadlineError, GraphOutputError, MemoryLimitError)
"""Errors that one question can have and the next one not; others are those of the settings."""


def answered_records(
    engine: RagEngine, questions: Sequence[str], settings: Mapping[str, Any], deadline: float | None = None
) -> list[dict[str, Any]]:
    """Answer questions together; where that fails, each alone, so that none loses its answer by another.

    Args:
        engine: the model and its index.
        questions: checked texts.
        settings: keyword arguments of :meth:`RagEngine.generate` but for ``deadline``.
        deadline: seconds a question; a batch may take that times the number of its questions.
    """
    try:
        answers = engine.generate(
            list(questions), deadline=None if deadline is None else deadline * len(questions), **settings
        )
    except OWN_FAILURES as error:
        if len(questions) == 1:
            return [error_record(questions[0], error)]
        return [one for text in questions for one in answered_records(engine, [text], settings, deadline)]
    return [answer_record(answer) for answer in answers]


def answer_record(answer: Answer) -> dict[str, Any]:
    """The answer in the layout of ``ragengine ask --json`` without times, which differ from run to run."""
    return {name: value for name, value in answer.to_dict().items() if name != "timings_ms"}


def error_record(question: object, error: RagEngineError) -> dict[str, Any]:
    """The question and why it has no answer."""
    return {"question": question, "error": {"type": type(error).__name__, "message": str(error)}}
