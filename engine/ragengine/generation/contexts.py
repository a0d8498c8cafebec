"""What the generator reads: questions joined with their documents, as tokens, and the documents' priors."""

from dataclasses import dataclass

import numpy as np

from ragengine.arrays import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Contexts:
    """Q questions, each joined with its D documents; the arrays have been checked.

    input_ids       int64 [Q, D, S]
    attention_mask  int64 [Q, D, S], 1 for a token and 0 for padding; every document has a token
    log_prior       float32 [Q, D], log p(z | x); -inf leaves a document out
    """

    input_ids: IntArray
    attention_mask: IntArray
    log_prior: FloatArray

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, part: slice) -> "Contexts":
        """The questions of ``part``."""
        return Contexts(self.input_ids[part], self.attention_mask[part], self.log_prior[part])

    @property
    def visible_ids(self) -> IntArray:
        """``input_ids`` with -1 where the mask hides: how far a batch is padded must not change an answer."""
        return np.where(self.attention_mask != 0, self.input_ids, -1)
