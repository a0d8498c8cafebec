"""What both decoders take and give: encoded documents, and one step of the beams that read them.

Two decoders compute the same step.  :mod:`.dynamic` lets the past grow, which is fastest on a CPU;
:mod:`.static` has room for a whole search from the start, which a CUDA graph needs.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from ragengine.arrays import BoolArray, FloatArray, IntArray
from ragengine.runtime.cancellation import NEVER, Stop
from ragengine.runtime.sessions import OrtValue

MIXTURE_OUTPUTS = (
    "candidate_scores",
    "candidate_beams",
    "candidate_tokens",
    "candidate_log_probs",
    "probe_log_probs",
)
"""The decoder's outputs in the order of :class:`Step`; the present of its layers follows."""


@dataclass(frozen=True)
class EncodedDocuments:
    """D encoded documents for each of Q questions; searches share it and leave it as it is.

    context_attention_mask  int64 [Q, D, S]
    memory                  what the decoder keeps of the documents, by name: rows [Q·D, ...] on the device
    stop                    when the call that reads them has to end early
    """

    context_attention_mask: IntArray
    memory: dict[str, OrtValue]
    stop: Stop = NEVER

    def by_document(self) -> "EncodedDocuments":
        """The same documents as Q·D questions of one document each."""
        q, d, s = self.context_attention_mask.shape
        return replace(self, context_attention_mask=self.context_attention_mask.reshape(q * d, 1, s))


@dataclass(frozen=True)
class StepInputs:
    """What one decoding step is asked.

    token_ids       int64 [Q, B]      the last token of each beam
    beam_indices    int64 [Q, B]      which beam of the step before each continues
    log_weights     float32 [Q, D, B]
    beam_scores     float32 [Q, B]
    num_candidates  C
    probe_ids       int64 [Q, B, P]
    """

    token_ids: IntArray
    beam_indices: IntArray
    log_weights: FloatArray
    beam_scores: FloatArray
    num_candidates: int
    probe_ids: IntArray

    @property
    def result_shapes(self) -> tuple[tuple[int, ...], ...]:
        """:attr:`Step.shapes` of the step that answers."""
        q, b, d = *self.token_ids.shape, self.log_weights.shape[1]
        candidates = (q, self.num_candidates)
        by_document = (q, d, self.num_candidates)
        return (candidates, candidates, candidates, by_document, (q, d, b, self.probe_ids.shape[2]))


@dataclass(frozen=True)
class Step:
    """What one decoding step gives; candidates best first, C of them per question.

    scores           float32 [Q, C]         beam score + log p(y_t | x, y_<t)
    beams, tokens    int64 [Q, C]
    log_probs        float32 [Q, D, C]      log p(y_t | x, z, y_<t)
    probe_log_probs  float32 [Q, D, B, P]   the same for the tokens that were asked for
    """

    scores: FloatArray
    beams: IntArray
    tokens: IntArray
    log_probs: FloatArray
    probe_log_probs: FloatArray

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of all arrays, in their order."""
        arrays = (self.scores, self.beams, self.tokens, self.log_probs, self.probe_log_probs)
        return tuple(array.shape for array in arrays)


class Decoding(Protocol):
    """Beams that decode over a reading, step by step.

    The past holds P tokens, all that the beams of all steps have read; a boolean ``own_past`` [Q, B, P] says
    which of them each beam continues, so that no beam's cache is ever reordered.
    """

    reading: EncodedDocuments
    length: int
    """T, the tokens that each beam has read."""

    def step(self, inputs: StepInputs) -> Step:
        """Let every beam read its last token."""


def inherited(own_past: BoolArray, beam_indices: IntArray) -> BoolArray:
    """What each beam has read before this step, bool [Q, B, P]: the past of the beam that it continues."""
    found: BoolArray = own_past[np.arange(len(beam_indices))[:, None], beam_indices]
    return found
