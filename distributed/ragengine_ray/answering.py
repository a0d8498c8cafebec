"""Batch inference in Ray Data: a class for ``map_batches``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from ragengine import RagEngine
from ragengine.batch_inference.records import answered_records, error_record
from ragengine.errors import InputError
from ragengine.pipeline.settings import GenerateSettings
from ragengine.runtime.devices import Device
from ragengine.storage.folders import Verify
from ragengine.validation import checked_text

Column = NDArray[Any]


class Answerer:
    """Answers a column of questions; each actor of ``map_batches`` loads the model once.

    ``dataset.map_batches(Answerer, fn_constructor_kwargs={"bundle": ..., "index": ...}, batch_size=32,
    compute=ray.data.ActorPoolStrategy(size=2))`` keeps the other columns.  Give fewer actors than the cluster
    has CPUs: where they reserve all, no task is left to read the dataset's files.  It adds, for each row,

    answer              the text; None where the question failed
    log_prob            log p(y | x) in nats; NaN where the question failed
    confidence          the probability that the answer is right; NaN without a calibration
    document_ids        the passages that were read, in one text: a JSON list
    error               why there is no answer; None where there is one
    record              the line that ``ragengine ask --file`` writes of it, without line, id and run
    """

    def __init__(
        self,
        bundle: str | Path,
        index: str | Path,
        *,
        question: str = "question",
        device: Device = "auto",
        threads: int | None = 1,
        verify: Verify = "size",
        **settings: Unpack[GenerateSettings],
    ) -> None:
        """Load a model and its index, at the same paths on every node.

        Args:
            bundle: the bundle's folder.
            index: the index's folder.
            question: the column of questions.
            device: where the graphs run.
            threads: threads of a graph; as many as ``num_cpus`` gives an actor.
            verify: how the files of bundle and index are checked.
            **settings: as in :meth:`RagEngine.generate`; ``deadline`` is in seconds a question, as in
                :func:`ragengine.answer_file`.

        Raises:
            RagEngineError: the engine cannot be loaded, or a setting is wrong.
        """
        self._question = question
        self._settings: dict[str, Any] = {**settings}
        self._deadline: float | None = self._settings.pop("deadline", None)
        self._engine = RagEngine.load(bundle, index=index, device=device, threads=threads, verify=verify)
        self._engine.generate([], **self._settings)

    def __call__(self, batch: Mapping[str, Column]) -> dict[str, Column]:
        """The batch with the columns of the answers.

        Raises:
            InputError: there is no such column of questions.
        """
        if self._question not in batch:
            raise InputError(
                f"The batch has the columns {', '.join(batch)}; name the one of the questions (question=...)."
            )
        records = self._records(list(batch[self._question]))
        errors = [one.get("error") for one in records]
        return {
            **batch,
            "answer": _objects([one.get("answer") for one in records]),
            "log_prob": _numbers([one.get("log_prob") for one in records]),
            "confidence": _numbers([one.get("confidence") for one in records]),
            "document_ids": _objects(
                [json.dumps([document["id"] for document in one.get("documents", ())]) for one in records]
            ),
            "error": _objects(
                [None if one is None else f"{one['type']}: {one['message']}" for one in errors]
            ),
            "record": _objects([json.dumps(one, ensure_ascii=False) for one in records]),
        }

    def _records(self, questions: Sequence[Any]) -> list[dict[str, Any]]:
        """The record of each question; what is no text is not asked."""
        records: dict[int, dict[str, Any]] = {}
        for row, question in enumerate(questions):
            try:
                checked_text("The question", question)
            except InputError as error:
                records[row] = error_record(None, error)
        asked = [row for row in range(len(questions)) if row not in records]
        answers = answered_records(
            self._engine, [questions[row] for row in asked], self._settings, self._deadline
        )
        records |= dict(zip(asked, answers, strict=True))
        return [records[row] for row in range(len(questions))]


def _objects(values: Sequence[Any]) -> Column:
    column = np.empty(len(values), object)
    column[:] = values
    return column


def _numbers(values: Sequence[float | None]) -> Column:
    return np.array([np.nan if value is None else value for value in values], np.float64)
