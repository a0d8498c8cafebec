"""Which tokens may follow: transformers' logits processors that force or ban.

Candidates are chosen inside the graph, before these rules are known there.  The search stays exact
because it fetches as many candidates more as can be banned, and asks for a forced token's
probabilities by name (the graph's ``probe_ids``).
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.options import GenerationOptions

IntArray: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Constraints:
    """The rules of one search; ``sequences`` are int64 [Q, B, T] with the decoder's start token."""

    options: GenerationOptions

    def forced(self, length: int) -> int | None:
        """The token that must come after ``length`` tokens, if one is forced.

        `ForcedBOSTokenLogitsProcessor` and `ForcedEOSTokenLogitsProcessor`: every other token is ruled
        out and the forced one adds 0 to the score.
        """
        if length == self.options.max_length - 1 and self.options.forced_eos_token_id is not None:
            return self.options.forced_eos_token_id
        return self.options.forced_bos_token_id if length == 1 else None

    def banned(self, sequences: IntArray) -> list[list[set[int]]]:
        """For each question and beam the tokens that may not follow.

        `MinLengthLogitsProcessor` and `NoRepeatNGramLogitsProcessor`.
        """
        length = sequences.shape[-1]
        always = set(self.options.eos_token_ids) if length < self.options.min_length else set()
        size = self.options.no_repeat_ngram_size
        if not size or length < size:
            return [[always] * sequences.shape[1]] * sequences.shape[0]
        return [[always | _repeats(beam, size) for beam in beams] for beams in sequences.tolist()]


def _repeats(tokens: list[int], size: int) -> set[int]:
    """Tokens that would complete an n-gram of ``size`` that ``tokens`` already contain."""
    prefix = tokens[len(tokens) - size + 1 :]
    return {
        tokens[start + size - 1]
        for start in range(len(tokens) - size + 1)
        if tokens[start : start + size - 1] == prefix
    }
