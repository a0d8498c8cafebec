"""Answers to dev questions while a stage trains: exact match, which chooses checkpoints, and the texts."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ragengine.evaluation import exact_match, f1
from ragengine.storage.atomic import output_file
from ragengine_train.data import Example
from ragengine_train.processes import is_first, rejoin


@dataclass(frozen=True)
class Sample:
    """A dev question, its right answers, and what the model answers."""

    question: str
    answers: tuple[str, ...]
    text: str


Answering: TypeAlias = Callable[[], list[str]]
"""Answers of the model as it is now to this process's :func:`share` of the examples."""


@dataclass(frozen=True)
class DevSet:
    """Dev examples, at least one, and how the model in training answers them."""

    examples: Sequence[Example]
    answer_share: Answering

    def answer(self) -> list[str]:
        """Answers of the model as it is now, one for each example; each process makes its share."""
        return rejoin(self.answer_share())

    def measure(self, path: Path) -> dict[str, float]:
        """The means of exact match and F1; the answers are written to ``path``, a JSON object a line."""
        texts = self.answer()
        samples = [
            Sample(one.question, one.answers, text.strip())
            for one, text in zip(self.examples, texts, strict=True)
        ]
        if is_first():
            _write(samples, path)
        figures: dict[str, Any] = {
            "exact_match": [float(exact_match(one.text, one.answers)) for one in samples],
            "f1": [f1(one.text, one.answers) for one in samples],
        }
        return {name: sum(values) / len(samples) for name, values in figures.items()}


def _write(samples: Sequence[Sample], path: Path) -> None:
    with output_file(path, parents=True) as file:
        for sample in samples:
            file.write(json.dumps(asdict(sample), ensure_ascii=False).encode() + b"\n")
