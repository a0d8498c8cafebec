"""What both decoders share: their protocol, encoded documents, and one step of the beams that read them.

Two decoders compute the same step.  :mod:`.dynamic` lets the KV cache grow, which is fastest on a CPU;
:mod:`.static` has room for a whole search from the start, which a CUDA graph needs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np

from ragengine.arrays import BoolArray, FloatArray, IntArray
from ragengine.runtime.sessions import InferenceSession, OrtValue, to_device

Result = TypeVar("Result")

OpenSession: TypeAlias = Callable[..., InferenceSession]
"""Opens a graph of the generator by its file name; ``cuda_graphs=True`` lets its runs be captured."""


@dataclass(frozen=True)
class EncodedDocuments:
    """D encoded documents for each of Q questions; searches share it and leave it as it is.

    context_attention_mask  int64 [Q, D, S]
    memory                  what the decoder keeps of the documents, by name: rows [Q·D, ...] on the device
    """

    context_attention_mask: IntArray
    memory: dict[str, OrtValue]

    def of_questions(self, questions: IntArray) -> "EncodedDocuments":
        """The documents of the questions at these places, in that order; the memory is still that of all."""
        return EncodedDocuments(self.context_attention_mask[questions], dict(self.memory))

    def joined(self, other: "EncodedDocuments") -> "EncodedDocuments":
        """The documents of both, of one question, which were padded to the same length."""
        parts = (self, other)
        memory = {
            name: to_device(
                np.concatenate([part.memory[name].numpy() for part in parts]), value.device_name()
            )
            for name, value in self.memory.items()
        }
        masks = [part.context_attention_mask for part in parts]
        return EncodedDocuments(np.concatenate(masks, axis=1), memory)

    def by_document(self) -> "EncodedDocuments":
        """The same documents as Q·D questions of one document each."""
        q, d, s = self.context_attention_mask.shape
        return replace(self, context_attention_mask=self.context_attention_mask.reshape(q * d, 1, s))


@dataclass(frozen=True)
class StepInputs:
    """The inputs of one decoding step.

    token_ids       int64 [Q, B]       the last token of each beam
    beam_indices    int64 [Q, B]       which beam of the step before each continues
    log_weights     float32 [Q, D, B]  log p(z | x) or log p(z | x, y_<t)
    beam_scores     float32 [Q, B]     log p(y_<t | x), as the search counts it
    num_candidates  C
    probe_ids       int64 [Q, B, P]    tokens whose probabilities are wanted whatever their rank
    chained         each beam continues the one before it of this step, the first one ``beam_indices``
    """

    token_ids: IntArray
    beam_indices: IntArray
    log_weights: FloatArray
    beam_scores: FloatArray
    num_candidates: int
    probe_ids: IntArray
    chained: bool = False

    @property
    def output_shapes(self) -> tuple[tuple[int, ...], ...]:
        """:attr:`StepOutputs.shapes` of this step."""
        q, b, d = *self.token_ids.shape, self.log_weights.shape[1]
        candidates = (q, self.num_candidates)
        by_document = (q, d, self.num_candidates)
        return (candidates, candidates, candidates, by_document, (q, d, b, self.probe_ids.shape[2]))


@dataclass(frozen=True)
class StepOutputs:
    """The outputs of one decoding step; candidates best first, C of them per question.

    The fields are those of :data:`~ragengine.bundle.signatures.MIXTURE_OUTPUTS`, in their order.

    scores           float32 [Q, C]         beam score + log p(y_t | x, y_<t)
    beams, tokens    int64 [Q, C]
    log_probs        float32 [Q, D, C]      log p(y_t | x, z, y_<t)
    probe_log_probs  float32 [Q, D, B, P]   the same for ``probe_ids``
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
    """Beams that decode over encoded documents, step by step.

    The past holds P tokens, all that the beams of all steps have read; a boolean ``own_past`` [Q, B, P] says
    which of them each beam continues, so that no beam's cache is ever reordered.
    """

    encoded: EncodedDocuments
    length: int
    """T, the tokens that each beam has read; of a chain, its first beam."""

    def advance(self, inputs: StepInputs) -> StepOutputs:
        """Let every beam read its last token: all beams have read as many, except for those of a chain."""

    def keep(self, questions: IntArray) -> None:
        """Go on with the questions at these places alone, in that order; the others are done."""


class Decoder(Protocol):
    """The decoder of a bundle.  Threads may share it; each search has a :class:`Decoding` of its own."""

    dtype: type[np.floating[Any]]
    """What the graphs compute in."""
    reads_chains: bool
    """Whether a step can be :attr:`StepInputs.chained`."""

    def source_length(self, length: int) -> int:
        """The length S that documents of ``length`` tokens are padded to before they are encoded."""

    def memory(self, states: OrtValue) -> dict[str, OrtValue]:
        """:attr:`EncodedDocuments.memory` of the encoder's states [Q·D, S, d_model]."""

    def start(self, encoded: EncodedDocuments, *, beams: int, steps: int) -> Decoding:
        """Beams that have read nothing yet: at most ``beams`` a question and ``steps`` steps."""

    def run_search(self, search: Callable[[], Result]) -> Result:
        """What ``search`` returns or raises, run in the thread in which its steps cost least."""


def inherited(own_past: BoolArray, beam_indices: IntArray) -> BoolArray:
    """What each beam has read before this step, bool [Q, B, P]: the past of the beam that it continues."""
    found: BoolArray = own_past[np.arange(len(beam_indices))[:, None], beam_indices]
    return found
