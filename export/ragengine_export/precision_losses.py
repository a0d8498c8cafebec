"""What int8 and int4 cost by part: answers with one part of the model rounded at a time."""

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ragengine.engine import RagEngine
from ragengine.evaluation import evaluate, read_questions
from ragengine_export.choices import PARTS, Part


@dataclass(frozen=True)
class PartLoss:
    """Answers to questions with one part rounded and the others in float32.

    part         one of :data:`~ragengine_export.choices.PARTS`, "none" or "all"
    exact_match  the share of questions answered exactly
    likelihood   log p(first answer | question), the mean in nats

    Both are None where no question has an answer.
    """

    part: str
    exact_match: float | None
    likelihood: float | None


class Write(Protocol):
    """Writes a bundle to an empty folder, with some parts rounded."""

    def __call__(self, folder: Path, *, parts: Collection[Part]) -> object: ...


def losses_by_part(write: Write, questions: Path, index: Path) -> tuple[PartLoss, ...]:
    """The losses of nothing rounded, of each part alone, and of all together.

    One bundle at a time lies in the folder for temporary files, of up to the size of fp32.

    Args:
        write: writes the bundles.
        questions: JSON lines as :func:`ragengine.evaluation.read_questions` reads them.
        index: an index of the model's passage encoder.

    Raises:
        RagEngineError: questions or index cannot be used.
    """
    asked = read_questions(questions)
    losses = []
    for name, parts in [("none", ()), *((part, (part,)) for part in PARTS), ("all", PARTS)]:
        with tempfile.TemporaryDirectory(prefix="ragengine-") as folder:
            write(Path(folder), parts=parts)
            with RagEngine.load(folder, index=index, device="cpu") as engine:
                figures = evaluate(engine, asked, likelihood=True, resamples=0).figures
        losses.append(PartLoss(name, figures["exact_match"], figures["log_likelihood"]))
    return tuple(losses)
