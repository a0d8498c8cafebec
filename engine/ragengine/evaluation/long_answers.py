"""ROUGE-L and BLEU of long answers, by the packages that define them (extra ``eval``)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ragengine.errors import DependencyError
from ragengine.evaluation.statistics import DoubleArray

BLEU_ORDERS = {"bleu": 4, "bleu-1": 1}  # the longest n-grams of each figure
_LONGEST = max(BLEU_ORDERS.values())


def rouge_scorer() -> Callable[[str, Sequence[str]], float]:
    """ROUGE-L's F1 of an answer against the best of its references (Lin 2004), without stemming.

    Raises :class:`DependencyError` without rouge-score, and without sacrebleu: `bleu` is asked for only when
    all questions have been answered.
    """
    try:
        import sacrebleu  # noqa: F401  # whether it is there, before hours of answering
        from rouge_score.rouge_scorer import RougeScorer
    except ModuleNotFoundError as reason:
        raise _missing(reason) from reason
    scorer = RougeScorer(["rougeL"], use_stemmer=False)

    def rouge_l(answer: str, references: Sequence[str]) -> float:
        return float(scorer.score_multi(list(references), answer)["rougeL"].fmeasure)

    return rouge_l


def bleu_statistics(answers: Sequence[str], references: Sequence[Sequence[str]]) -> DoubleArray:
    """What sacrebleu counts in each answer, [N, 10] with 13a tokens: BLEU is a function of the sums.

    Length of the answer, length of its nearest reference, n-grams that a reference has, n-grams; n is 1 to 4.
    An answer may have any number of references, at least one.  Raises :class:`DependencyError` without
    sacrebleu.
    """
    # effective_order is for the score of one sentence, which nobody reads; without it sacrebleu warns
    metric = _sacrebleu()(max_ngram_order=_LONGEST, effective_order=True)
    scores = [metric.sentence_score(*pair) for pair in zip(answers, references, strict=True)]
    return np.array([[one.sys_len, one.ref_len, *one.counts, *one.totals] for one in scores], np.float64)


def bleu(sums: DoubleArray, order: int) -> float:
    """Corpus BLEU up to n-grams of ``order``, exponentially smoothed, 0 to 1.

    ``sums``, [10], are those of `bleu_statistics` over the answers.
    """
    lengths, right, all_ = (part.tolist() for part in np.split(sums, [2, 2 + _LONGEST]))
    score = _sacrebleu().compute_bleu(
        right[:order], all_[:order], *map(int, lengths), smooth_method="exp", max_ngram_order=order
    )
    return float(score.score) / 100


def _sacrebleu() -> Any:
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ModuleNotFoundError as reason:
        raise _missing(reason) from reason
    return BLEU


def _missing(reason: ModuleNotFoundError) -> DependencyError:
    return DependencyError(
        f"--task generation needs the package {reason.name}, which is not installed; "
        'run pip install "ragengine[eval]".'
    )
