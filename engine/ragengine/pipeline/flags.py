"""What a reader should know before trusting an answer, without any calibration."""

import math

from ragengine.arrays import FloatArray
from ragengine.confidence.corpus import Corpus
from ragengine.grounding.citations import missing_words
from ragengine.grounding.words import words_of
from ragengine.results import Answer

_EVEN = 0.5


def doubts(answer: Answer, corpus: Corpus | None, vector: FloatArray | None) -> tuple[str, ...]:
    """The flags that an answer's own numbers and words raise: those of :class:`Answer` from
    ``empty_answer`` to ``far_from_corpus``.

    Args:
        answer: the answer.
        corpus: what was searched; None where that is not known, or documents were brought.
        vector: the question vector q(x), float32 [E], for ``far_from_corpus``.
    """
    scores = [document.score or 0.0 for document in (*answer.documents, *answer.pruned)]
    raised = {
        "empty_answer": not words_of(answer.text) and not answer.text.strip(),
        "low_probability": answer.log_prob < math.log(_EVEN),
        "not_in_documents": bool(missing_words(answer.text, answer.question, answer.documents)),
        "posterior_spread": float(answer.document_shares.max()) < _EVEN,
        "far_from_corpus": corpus is not None and vector is not None and corpus.is_far(vector, max(scores)),
    }
    return tuple(flag for flag, is_raised in raised.items() if is_raised)
