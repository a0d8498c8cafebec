"""What is known of the corpus that a question was searched in: its spread, its identity, its calibration."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray
from ragengine.confidence.model import ConfidenceModel

SAMPLED = 256
"""Passages whose vectors stand for the corpus."""
_FEWEST = 30  # passages; the spread of fewer says nothing


@dataclass(frozen=True, eq=False)
class Corpus:
    """The passages of an index as far as an answer's flags need them; it outlives the index.

    fingerprint   of the index (:func:`fingerprint`)
    count         N, how many passages there are
    sample        vectors of passages that are spread evenly over the index, float32 [S, E]
    calibration   what ``ragengine calibrate`` has put beside the index
    """

    fingerprint: str
    count: int
    sample: FloatArray
    calibration: ConfidenceModel | None = None

    def is_far(self, vector: FloatArray, best: float) -> bool:
        """:func:`far_from_corpus` of a question vector q(x), float32 [E], and its best score."""
        return far_from_corpus(self.sample @ vector, best, self.count)


def far_from_corpus(scores: FloatArray, best: float, count: int) -> bool:
    """Whether the best passage is no nearer to a question than the best of as many random ones would be.

    The scores of a sample of passages give mean m and standard deviation s.  The largest of N scores of a
    normal distribution is about m + s sqrt(2 log N) (Cramér 1946, section 28.6); a passage about what is
    asked stands out beyond that.

    Args:
        scores: q(x)·d(z) of a sample of passages, float32 [S].
        best: the best score of all N.
        count: N.
    """
    if count < _FEWEST:
        return False
    spread = float(scores.std(dtype=np.float64))
    expected = float(scores.mean(dtype=np.float64)) + spread * math.sqrt(2 * math.log(count))
    return best < expected


def sampled_rows(count: int) -> list[int]:
    """The rows of the sample: at most :data:`SAMPLED`, spread evenly."""
    return np.unique(np.linspace(0, count - 1, min(SAMPLED, count)).astype(np.int64)).tolist()


def fingerprint(content: Mapping[str, Any]) -> str:
    """The sha256 of what a folder holds, in hexadecimal: of JSON values that its answers depend on."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
