"""Answers kept in a folder under what decides them, so that no other model's are taken for them."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ragengine.confidence.corpus import fingerprint
from ragengine.engine import RagEngine
from ragengine.errors import InputError, PassagesError
from ragengine.evaluation.measured import Prediction
from ragengine.evaluation.questions import Question
from ragengine.retrieval.searched_index import SearchedIndex
from ragengine.storage.atomic import output_file
from ragengine.storage.foreign_files import json_lines
from ragengine.storage.schema import join_errors, parse
from ragengine.version import __version__


@dataclasses.dataclass(frozen=True)
class _Line:
    question: str
    prediction: Prediction


def identity(engine: RagEngine, settings: dict[str, Any]) -> str:
    """The fingerprint of what decides answers: model, index, calibration, device, version, settings.

    Raises:
        InputError: the engine searches an object of the caller's own, of which nothing is known, or samples.
    """
    if settings.get("do_sample"):
        raise InputError("predictions are kept and do_sample is True; sampled answers are not kept.")
    with engine.retriever.borrow_index() as index:
        if not isinstance(index, SearchedIndex):
            raise InputError("predictions are kept for an index folder alone; leave them out.")
        corpus = index.corpus
    return fingerprint(
        {
            "bundle": engine.bundle.fingerprint,
            "index": corpus.fingerprint,
            "calibration": repr(corpus.calibration),
            "device": engine.device,
            "version": __version__,
            "settings": settings,
        }
    )


class KeptPredictions:
    """The answers of one system by question, in the file of its fingerprint."""

    def __init__(self, folder: Path, name: str) -> None:
        """Read the file if there is one; raises :class:`PassagesError` where it holds anything else."""
        self.path = folder / f"{name}.jsonl"
        self._known: dict[str, Prediction] = {}
        self._new = False
        for number, text in json_lines(self.path, PassagesError) if self.path.exists() else ():
            line = _parsed(text, f"{self.path}, line {number}")
            self._known[line.question] = line.prediction

    def answered(
        self, questions: Sequence[Question], answer: Callable[[Sequence[Question]], Iterable[Prediction]]
    ) -> Iterator[Prediction]:
        """The answer of each question; those that are not known come from ``answer``, and are kept.

        They are written at the end, also where that is an error or an interrupt.
        """
        asked = {one.question: one for one in questions if one.question not in self._known}
        fresh = iter(answer(list(asked.values())) if asked else ())
        try:
            for question in questions:
                if question.question not in self._known:
                    self._known[question.question] = next(fresh)
                    self._new = True
                yield self._known[question.question]
        finally:
            if self._new:
                self._write()

    def _write(self) -> None:
        with output_file(self.path, parents=True) as file:
            for question, prediction in self._known.items():
                line = dataclasses.asdict(_Line(question, prediction))
                file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


def _parsed(text: str, where: str) -> _Line:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    line = parse(_Line, content, "line")
    if line.value is None or line.errors:
        raise PassagesError(f"{where} is no kept prediction ({join_errors(line.errors)}); remove the file.")
    return line.value
