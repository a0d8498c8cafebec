"""The partial and finished outputs of a search, as arrays with a question and a beam axis."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import FloatArray, IntArray
from ragengine.generation.search.candidates import DEAD, Candidates
from ragengine.generation.search.outputs import Output
from ragengine.options import GenerationOptions


@dataclass
class Beams:
    """Outputs of Q questions, N places a question.

    scores     float32 [Q, N], -inf where a place is empty
    tokens     int64 [Q, N, L], with the decoder's start token; L is the longest output
    log_probs  float32 [Q, N, L, D], log p(y_t | x, z, y_<t) of each token
    lengths    int64 [Q, N], tokens in use
    """

    scores: FloatArray
    tokens: IntArray
    log_probs: FloatArray
    lengths: IntArray

    @classmethod
    def empty(cls, questions: int, places: int, n_docs: int, options: GenerationOptions) -> "Beams":
        """``places`` beams a question that hold nothing but the start token, all dead."""
        shape = (questions, places, options.longest)
        tokens = np.full(shape, options.decoder_start_token_id, np.int64)
        log_probs = np.zeros((*shape, n_docs), np.float32)
        scores = np.full((questions, places), DEAD, np.float32)
        return cls(scores, tokens, log_probs, np.ones((questions, places), np.int64))

    @classmethod
    def started(cls, questions: int, places: int, n_docs: int, options: GenerationOptions) -> "Beams":
        """Beams that hold the start token alone."""
        beams = cls.empty(questions, places, n_docs, options)
        beams.scores[:] = 0
        return beams

    def take(self, places: IntArray) -> "Beams":
        """The beams at ``places`` int64 [Q, M], in that order."""
        rows = np.arange(len(places))[:, None]
        return Beams(*(array[rows, places] for array in self._arrays))

    def of_questions(self, questions: IntArray) -> "Beams":
        """The beams of the questions at these places."""
        return Beams(*(array[questions] for array in self._arrays))

    def continued(self, candidates: Candidates, length: int) -> "Beams":
        """Each candidate after the beam it continues, as token number ``length``."""
        beams = self.take(candidates.beams)
        beams.scores = candidates.scores
        beams.tokens[:, :, length] = candidates.tokens
        beams.log_probs[:, :, length] = candidates.log_probs.transpose(0, 2, 1)
        beams.lengths += 1
        return beams

    def best(self, count: int) -> IntArray:
        """Places of the ``count`` highest scores, best first, ties by place: int64 [Q, count]."""
        return np.argsort(-self.scores, axis=1, kind="stable")[:, :count]

    def joined(self, other: "Beams") -> "Beams":
        """The places of both."""
        pairs = zip(self._arrays, other._arrays, strict=True)
        return Beams(*(np.concatenate(pair, axis=1) for pair in pairs))

    def outputs(self, count: int) -> list[list[Output]]:
        """For each question the first ``count`` places that are not empty."""
        return [
            [self._output(question, place) for place in range(count) if self.scores[question, place] > DEAD]
            for question in range(len(self.scores))
        ]

    @property
    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return self.scores, self.tokens, self.log_probs, self.lengths

    def _output(self, question: int, place: int) -> Output:
        used = slice(1, int(self.lengths[question, place]))
        return Output(
            token_ids=self.tokens[question, place, used].copy(),
            score=float(self.scores[question, place]),
            log_probs=self.log_probs[question, place, used].copy(),
        )
