"""Comparison with Hugging Face's answers: documents, probabilities, then tokens."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ragengine_bench.parity.margins import TIE
from ragengine_bench.parity.pairs import Pair
from ragengine_bench.parity.reference import ReferenceAnswer
from ragengine_bench.parity.requests import Request
from tests.support.tally import Tally

TOLERANCE = 1e-4


class Comparison:
    """Compares the answers to one request, probabilities first, and keeps the figures."""

    def __init__(self, kind: str, pair: Pair, request: Request, per_token: float = 0.0) -> None:
        """`per_token` nats of difference are allowed for each token of an answer, where that is more."""
        self._per_token = per_token
        self.tally = Tally(kind=kind, model_type=pair.spec.model_type, configurations=1)
        # RAG-Sequence ranks by the likelihood as it is.
        self._penalty = request.options.get("length_penalty", 1.0) if kind == "token" else 0.0
        self._where = f"{kind} {request} of {pair.spec}"

    def compare(self, answer: Any, reference: ReferenceAnswer) -> None:
        """Documents, then hypotheses; differences are excused by a tie on HF's side only."""
        assert reference.doc_scores is not None
        ours = np.array([document.score for document in answer.documents], np.float32)
        self._close("doc_score", ours, reference.doc_scores)
        document_ids = [document.id for document in answer.documents]
        if document_ids != reference.document_ids:
            gap = float(np.abs(np.diff(reference.doc_scores)).min(initial=np.inf))
            assert gap < TIE, f"{document_ids} != {reference.document_ids}; {self._where}"
            self.tally.ties = 1
            return  # another passage is read: nothing further can be compared
        self.compare_hypotheses(answer.hypotheses, reference)

    def compare_hypotheses(self, hypotheses: Any, reference: ReferenceAnswer) -> None:
        found = [hypothesis for hypothesis in reference.hypotheses if hypothesis.found]
        self.tally.never_found += len(reference.hypotheses) - len(found) + reference.never_found
        if reference.distorted:
            self.tally.distorted += 1
            return
        self.tally.hypotheses += len(found)
        if self.tally.kind == "token":
            assert len(hypotheses) >= len(found), self._where
        else:
            assert len(hypotheses) == len(found) or reference.margin < TIE, self._where
        ours_found = hypotheses[: len(found)]
        our_ids = [[int(token) for token in hypothesis.token_ids] for hypothesis in ours_found]
        same = our_ids == [hypothesis.token_ids for hypothesis in found]
        if not same:
            assert reference.margin < TIE, (
                f"{our_ids} != {[h.token_ids for h in found]}; "
                f"{[h.score for h in ours_found]} != {[h.score for h in found]}; "
                f"HF's closest decision: {reference.margin:.1e}; {self._where}"
            )
            self.tally.ties = 1
        for hypothesis, expected in zip(ours_found, found, strict=same):
            length = len(expected.token_ids)
            allowed = max(TOLERANCE, self._per_token * length)
            if same:
                log_prob = np.array(hypothesis.score * length**self._penalty)
                self._close("log_prob", log_prob, np.array(expected.log_prob), allowed=allowed)
            if same or self.tally.kind == "token":
                # A negative penalty multiplies the log-probability, and its rounding, by the length.
                scale = max(1, length**-self._penalty)
                score = np.array(hypothesis.score)
                self._close("score", score, np.array(expected.score), scale, allowed)

    def _close(
        self,
        name: str,
        ours: np.ndarray,
        expected: np.ndarray,
        scale: float = 1.0,
        allowed: float = TOLERANCE,
    ) -> None:
        assert ours.shape == expected.shape, f"{name}: {ours.shape} != {expected.shape}; {self._where}"
        difference = float(np.abs(ours - expected).max(initial=0.0)) / scale
        assert math.isfinite(difference), f"{name}: {ours} != {expected}; {self._where}"
        field = f"{name}_difference"
        setattr(self.tally, field, max(getattr(self.tally, field), difference))
        if name == "log_prob":
            self.tally.beyond += difference > TOLERANCE
        assert difference <= allowed, f"{name}: {ours} != {expected} by {difference:.1e}; {self._where}"
