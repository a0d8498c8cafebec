"""`calibrate`: from questions with known answers to a confidence of every answer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ragengine.arrays import DoubleArray
from ragengine.calibration import fit as fitting
from ragengine.calibration import plot as plotting
from ragengine.calibration.observations import Observations, count_words, observe
from ragengine.calibration.patterns import question_patterns
from ragengine.confidence.features import FEATURES
from ragengine.confidence.model import ConfidenceModel, relevant_options
from ragengine.engine import RagEngine
from ragengine.errors import InputError
from ragengine.evaluation.confidence import ConfidenceFigures, choose_threshold, judge
from ragengine.evaluation.questions import Question, read_questions
from ragengine.messages import short_repr
from ragengine.plot import check_drawable
from ragengine.runtime.devices import Device
from ragengine.runtime.progress import Progress, phase_report
from ragengine.version import __version__

_FEWEST = 50  # questions
_FEWEST_OF_A_KIND = 5  # right answers, and wrong ones


@dataclass(frozen=True)
class CalibrationReport:
    """What a calibration found.

    model            what was written beside the index
    cross_validated  figures of the questions that it was fitted to, each judged by models that know no
                     question of its pattern
    test             figures of other questions, where some were given
    """

    model: ConfidenceModel
    cross_validated: ConfidenceFigures
    test: ConfidenceFigures | None = None

    def to_dict(self) -> dict[str, Any]:
        """What ``ragengine calibrate --json`` prints."""
        test = None if self.test is None else self.test.to_dict()
        return {
            "threshold": self.model.threshold,
            "error_rate": self.model.error_rate,
            "cross_validated": self.cross_validated.to_dict(),
            "test": test,
        }

    def plot(self, path: str | Path) -> None:
        """Draw the reliability and the risk-coverage curve, of the test questions where there are some.

        Raises:
            InputError: ``path`` is not named .png or .svg, or cannot be written.
            DependencyError: matplotlib is not installed.
        """
        figures = self.test or self.cross_validated
        kind = "test questions" if self.test else "questions, cross-validated"
        title = (
            f"{figures.n} {kind}, {figures.unanswerable} without an answer; "
            f"AUROC {_number(figures.auroc_right)} right, {_number(figures.auroc_answerable)} answerable"
        )
        plotting.draw(figures, Path(path), title)


def calibrate(
    bundle: str | Path,
    index: str | Path,
    questions: str | Path | Sequence[Question],
    *,
    test: str | Path | Sequence[Question] | None = None,
    error_rate: float = 0.05,
    plot: str | Path | None = None,
    device: Device = "auto",
    search_device: Device | None = None,
    threads: int | None = None,
    verify: Literal["sha256", "size"] = "sha256",
    progress: Progress | None = None,
    **options: Any,
) -> CalibrationReport:
    """Fit how far answers can be trusted and write it beside the index, as ``ragengine calibrate`` does.

    Two logistic models over :data:`~ragengine.confidence.features.FEATURES` give the probability that the
    documents hold an answer and that the answer then is right; their product is the confidence.  It holds for
    this bundle, this index, these options and questions like these, of which some should have no answer.

    Args:
        bundle: the bundle's folder.
        index: the index's folder, which gets ``calibration.json``.
        questions: a JSONL file as for :func:`evaluate`, or the questions; those without answers are the
            unanswerable ones.
        test: other questions to judge the result by, which take no part in the fit.
        error_rate: the share of wrong answers that the threshold of ``low_confidence`` allows.
        plot: where to draw the curves, as PNG or SVG.
        device: where the graphs run: auto, cpu or cuda.
        search_device: where the index is searched; as ``device`` where None.
        threads: threads of a graph; all cores where None.
        verify: "sha256" hashes every file, "size" compares sizes alone.
        progress: called with (phase, done, total).
        **options: generation options by name; the bundle's where not given.

    Returns:
        The figures, and the model that was written.

    Raises:
        PassagesError: the questions cannot be read.
        InputError: too few questions, all answers are right or wrong, or no threshold reaches the rate.
        OptionsError: a generation option is wrong.
        BundleError, IndexFolderError: a folder is not whole, or the file cannot be written.
        DependencyError: scikit-learn, or for ``plot`` matplotlib, is not installed.
    """
    _check_rate(error_rate)
    fitting.check_installed()
    if plot is not None:
        check_drawable(Path(plot))
    asked, others = _read(questions), None if test is None else _read(test)
    if len(asked) < _FEWEST:
        raise InputError(
            f"There are {len(asked)} questions; a calibration needs at least {_FEWEST}, some unanswerable."
        )
    placing: dict[str, Any] = {"device": device, "search_device": search_device, "threads": threads}
    with RagEngine.load(bundle, index=index, verify=verify, **placing) as engine:
        chosen = engine.default_options.replace(**options)
        engine.generator.check_options(chosen)
        if chosen.do_sample:
            raise InputError("do_sample is True; sampled answers have no confidence, so search for them.")
        observed = observe(engine, asked, chosen, phase_report(progress, "answers"))
        _check_kinds(observed)
        words = count_words(engine)
        found = fit_confidence(observed, words, error_rate)
        tested = None
        if others is not None:
            tested = found.judge(observe(engine, others, chosen, phase_report(progress, "test answers")))
        model = ConfidenceModel(
            bundle=engine.bundle.fingerprint,
            index=engine.retriever.index.corpus.fingerprint,
            options=relevant_options(chosen),
            features=list(FEATURES),
            means=[float(value) for value in found.fitted.means],
            scales=[float(value) for value in found.fitted.scales],
            answerable=found.fitted.answerable,
            right=found.fitted.right,
            common_words=found.fitted.rarity.common,
            threshold=found.threshold,
            error_rate=error_rate,
            created_by=f"ragengine {__version__}",
            questions=len(asked),
            unanswerable=found.cross_validated.unanswerable,
            report={
                "strength": found.strength,
                "cross_validated": found.cross_validated.summary(),
                "test": None if tested is None else tested.summary(),
            },
        )
        model.write(engine.retriever.index.path)
    report = CalibrationReport(model, found.cross_validated, tested)
    if plot is not None:
        report.plot(plot)
    return report


@dataclass(frozen=True, eq=False)
class FittedConfidence:
    """The models that were fitted, the threshold that was chosen, and what chose them.

    fitted           the two models
    threshold        the confidence under which an answer is flagged
    strength         the inverse strength of regularisation
    cross_validated  figures of the answers that they were fitted to
    """

    fitted: fitting.Fitted
    threshold: float
    strength: float
    cross_validated: ConfidenceFigures

    def judge(self, observed: Observations) -> ConfidenceFigures:
        """The figures of other answers."""
        confidence, answerability = self.fitted.probabilities(observed.features(self.fitted.rarity))
        return _judge(confidence, answerability, observed, self.threshold)


def fit_confidence(
    observed: Observations, words: tuple[Counter[str], int], error_rate: float
) -> FittedConfidence:
    """Fit both models to answers and choose the threshold, by cross-validation.

    Args:
        observed: the answers.
        words: in how many passages each word is, and of how many.
        error_rate: the share of wrong answers that the threshold allows.

    Raises:
        InputError: no threshold reaches the rate.
    """
    judged = fitting.cross_validate(observed, words)
    groups = question_patterns(observed.questions)
    threshold = choose_threshold(judged.confidence, observed.right, error_rate, groups)
    if threshold is None:
        raise InputError(
            f"No confidence keeps the wrong answers under {error_rate:.1%} of {len(observed.right)} "
            "questions with a certainty of 95 %; allow a larger error_rate, or give more questions."
        )
    return FittedConfidence(
        fitting.fit(observed, words, judged.strength),
        threshold,
        judged.strength,
        _judge(judged.confidence, judged.answerability, observed, threshold),
    )


def _judge(
    confidence: DoubleArray, answerability: DoubleArray, observed: Observations, threshold: float
) -> ConfidenceFigures:
    log_probs = np.array([answer.log_prob for answer in observed.answers])
    return judge(confidence, answerability, log_probs, observed.right, observed.answerable, threshold)


def _read(questions: str | Path | Sequence[Question]) -> Sequence[Question]:
    """The questions, without those whose answers are not known."""
    asked = read_questions(Path(questions)) if isinstance(questions, str | Path) else questions
    return [question for question in asked if question.answers_known]


def _check_rate(error_rate: Any) -> None:
    if isinstance(error_rate, bool) or not isinstance(error_rate, int | float) or not 0 < error_rate < 1:
        raise InputError(f"error_rate is {short_repr(error_rate)}; it must be between 0 and 1, such as 0.05.")


def _check_kinds(observed: Observations) -> None:
    right = int(observed.right.sum())
    for count, kind in ((right, "right"), (len(observed.right) - right, "wrong")):
        if count < _FEWEST_OF_A_KIND:
            raise InputError(
                f"{count} answers are {kind}; a calibration needs at least {_FEWEST_OF_A_KIND} right and "
                "as many wrong ones: give questions of both kinds."
            )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
