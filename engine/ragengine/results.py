"""What the engine returns: documents, hypotheses, answers."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Document:
    """A passage z, retrieved or brought by the caller.

    ``score`` is q(x)·d(z); ``prior`` is p(z | x), the softmax of the scores over the documents read;
    ``posterior`` is p(z | x, y), averaged over the answer's tokens.  The last two are set on the
    documents of an answer.
    """

    title: str
    text: str
    id: str = ""
    score: float | None = None
    prior: float | None = None
    posterior: float | None = None


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """One output y of the search.

    token_ids         int64 [T], without the decoder's start token, with the end token if there is one
    score             as transformers' ``sequences_scores``: log-probability as the search counts it
                      (a forced token counts 0), divided by T ** length_penalty
    log_prob          log p(y | x) of these tokens under the model
    token_log_probs   float32 [T], log p(y_t | x, y_<t); they sum to ``log_prob``
    token_posteriors  float32 [T, D], p(z | x, y_t, y_<t): which document each token came from
    """

    token_ids: NDArray[np.int64]
    score: float
    log_prob: float
    token_log_probs: FloatArray
    token_posteriors: FloatArray


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to one question, with where it came from.

    ``documents`` are in the order of the D axis of the posteriors; ``hypotheses`` are best first, with
    their texts in ``texts``; ``timings_ms`` are milliseconds a stage of the whole call took.
    """

    question: str
    texts: tuple[str, ...]
    documents: tuple[Document, ...]
    hypotheses: tuple[Hypothesis, ...]
    tokens: tuple[str, ...]
    flags: tuple[str, ...]
    timings_ms: dict[str, float]

    @property
    def text(self) -> str:
        """The best hypothesis' text."""
        return self.texts[0]

    @property
    def score(self) -> float:
        """The best hypothesis' score (`Hypothesis.score`)."""
        return self.hypotheses[0].score

    @property
    def token_posteriors(self) -> FloatArray:
        """The best hypothesis' posteriors, float32 [T, D]."""
        return self.hypotheses[0].token_posteriors

    def to_dict(self) -> dict[str, Any]:
        """The answer as JSON values, in the layout of ``ragengine ask --json``."""
        best = self.hypotheses[0]
        tokens = zip(best.token_ids.tolist(), self.tokens, best.token_posteriors.tolist(), strict=True)
        return {
            "question": self.question,
            "answer": self.text,
            "score": self.score,
            "documents": [
                {
                    "id": document.id,
                    "title": document.title,
                    "text": document.text,
                    "doc_score": document.score,
                    "prior": document.prior,
                    "posterior": document.posterior,
                }
                for document in self.documents
            ],
            "tokens": [{"id": id, "text": text, "posterior": row} for id, text, row in tokens],
            "flags": list(self.flags),
            "timings_ms": dict(self.timings_ms),
        }
