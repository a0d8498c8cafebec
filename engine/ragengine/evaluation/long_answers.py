"""ROUGE-L and BLEU of long answers, by the packages that define them (extra ``eval``)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ragengine.arrays import DoubleArray
from ragengine.errors import DependencyError

BLEU_ORDERS = {"bleu": 4, "bleu-1": 1}  # the longest n-grams of each figure
_LONGEST = max(BLEU_ORDERS.values())


def rouge_scorer() -> Callable[[str, Sequence[str]], float]:
    """ROUGE-L's F1 of an answer and the best of its references (Lin 2004), without stemming.

    Raises:
        DependencyError: rouge-score is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ModuleNotFoundError as reason:
        raise _missing(reason) from reason
    scorer = RougeScorer(["rougeL"], use_stemmer=False)

    def rouge_l(answer: str, references: Sequence[str]) -> float:
        return float(scorer.score_multi(list(references), answer)["rougeL"].fmeasure)

    return rouge_l


def check_installed() -> None:
    """Raise :class:`DependencyError` where sacrebleu, which :func:`bleu` needs, is not installed."""
    _sacrebleu()


def bleu_statistics(answers: Sequence[str], references: Sequence[Sequence[str]]) -> DoubleArray:
    """What sacrebleu counts in each answer with 13a tokens: BLEU is a function of the sums.

    Args:
        answers: N texts.
        references: one text or more for each answer.

    Returns:
        float64 [N, 10]: the length of the answer, that of its nearest reference, the n-grams that a reference
        has too for n = 1 to 4, and all n-grams for n = 1 to 4.

    Raises:
        DependencyError: sacrebleu is not installed.
    """
    # effective_order changes the score of single sentences, which is not used; without it sacrebleu warns
    metric = _sacrebleu()(max_ngram_order=_LONGEST, effective_order=True)
    scores = [metric.sentence_score(*pair) for pair in zip(answers, references, strict=True)]
    return np.array([[one.sys_len, one.ref_len, *one.counts, *one.totals] for one in scores], np.float64)


def bleu(sums: DoubleArray, order: int) -> float:
    """Corpus BLEU with exponential smoothing, 0 to 1 (Papineni et al. 2002).

    Args:
        sums: the sums of :func:`bleu_statistics` over the answers, [10].
        order: the longest n-grams that count, 1 to 4.
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
