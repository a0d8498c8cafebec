"""ROUGE-L and BLEU of long answers, by the packages that define them (extra ``eval``)."""

from collections.abc import Callable, Sequence
from typing import Any

from ragengine.errors import DependencyError


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


def bleu(answers: Sequence[str], references: Sequence[Sequence[str]], order: int = 4) -> float:
    """Corpus BLEU up to n-grams of ``order`` (sacrebleu: 13a tokens, exponential smoothing), 0 to 1.

    An answer may have any number of references, at least one.  Raises :class:`DependencyError` without
    sacrebleu.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ModuleNotFoundError as reason:
        raise _missing(reason) from reason
    most = max(map(len, references))
    # sacrebleu takes the references by column, None where an answer has fewer
    columns: list[Any] = [[row[n] if n < len(row) else None for row in references] for n in range(most)]
    score: float = BLEU(max_ngram_order=order).corpus_score(list(answers), columns).score
    return score / 100


def _missing(reason: ModuleNotFoundError) -> DependencyError:
    return DependencyError(
        f"--task generation needs the package {reason.name}, which is not installed; "
        'run pip install "ragengine[eval]".'
    )
