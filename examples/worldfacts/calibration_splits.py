"""Calibrate and judge on many random splits of the test questions: how much do figures depend on the split?

    python calibration_splits.py [--splits 20] [--threads N]

Each split puts the wordings of `asking.py` at random into two halves, as `calibrate.py` does once: one half
is fitted to, and its threshold judged by the other. The questions are answered once; nothing is written. All
splits are of the same questions, so their figures are not independent: the range says how much one split may
mislead, not how the calibration does on other questions.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from calibrate import half
from ragengine import RagEngine
from ragengine.calibration.observations import Observations, count_words, observe
from ragengine.calibration.run import fit_confidence
from ragengine.errors import InputError
from ragengine.evaluation import read_questions
from ragengine.evaluation.confidence import ConfidenceFigures

HERE = Path(__file__).parent
ERROR_RATE = 0.05
FIGURES: dict[str, Callable[[ConfidenceFigures], float | None]] = {
    "questions": lambda found: found.n,
    "unanswerable": lambda found: found.unanswerable,
    "right of all": lambda found: found.accuracy,
    "AUROC of the confidence, right against wrong": lambda found: found.auroc_right,
    "AUROC of answerability, answerable against not": lambda found: found.auroc_answerable,
    "the same of the confidence": lambda found: found.auroc_answerable_by_confidence,
    "the same of p(y|x) alone": lambda found: found.auroc_answerable_by_probability,
    "expected calibration error": lambda found: found.reliability.ece,
    "answered at the threshold": lambda found: found.answered,
    "wrong of these": lambda found: found.error,
}


def judge_split(
    observed: Observations, words: tuple[Counter[str], int], salt: str
) -> ConfidenceFigures | None:
    """The figures of one half, by what was fitted to the other; None where no threshold was found."""
    halves = np.array([half(question, salt) for question in observed.questions])
    dev, test = (np.flatnonzero(halves == name) for name in ("dev", "test"))
    try:
        return fit_confidence(observed.of(dev), words, ERROR_RATE).judge(observed.of(test))
    except InputError:
        return None


def print_table(found: list[ConfidenceFigures]) -> None:
    """A row a figure: mean, standard deviation, least and largest over the splits."""
    print(f"| on {len(found)} other halves | mean | standard deviation | least | largest |")
    print("|---|---|---|---|---|")
    for name, figure in FIGURES.items():
        values = [value for one in found if (value := figure(one)) is not None]
        digits = 0 if values[0] >= 1 and float(values[0]).is_integer() else 3
        shown = (fmean(values), stdev(values), min(values), max(values))
        print(f"| {name} |", " | ".join(f"{value:,.{digits}f}" for value in shown), "|")


def main() -> None:
    """Answer, and judge every split."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=20, help="number of random splits")
    parser.add_argument("--threads", type=int, help="threads of a graph")
    arguments = parser.parse_args()
    files = ("questions.jsonl", "questions_unanswerable.jsonl")
    questions = [question for file in files for question in read_questions(HERE / file)]
    with RagEngine.load(HERE / "bundle", index=HERE / "index", threads=arguments.threads) as engine:
        observed = observe(engine, questions, engine.default_options, lambda done, total: None)
        words = count_words(engine)
    found = []
    for number in range(arguments.splits):
        figures = judge_split(observed, words, f"split {number}")
        if figures is None:
            print(f"split {number}: no threshold keeps the wrong answers under {ERROR_RATE:.0%}", flush=True)
            continue
        found.append(figures)
        print(
            f"split {number}: {figures.n} questions, AUROC {figures.auroc_right:.3f} and "
            f"{figures.auroc_answerable:.3f}, answered {figures.answered:.3f}, wrong {figures.error:.3f}",
            flush=True,
        )
    print_table(found)
    over = sum((one.error or 0.0) >= ERROR_RATE for one in found)
    print(f"{over} of {len(found)} have {ERROR_RATE:.0%} or more wrong among the answered")


if __name__ == "__main__":
    main()
