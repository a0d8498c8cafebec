"""What is known of the corpus that a question was searched in: its spread, its identity, its calibration."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import DoubleArray, FloatArray
from ragengine.confidence.model import ConfidenceModel

SAMPLED = 256
"""Passages whose vectors stand for the corpus."""
NEIGHBOURS = 64
"""Those of them whose nearest neighbours are looked up."""
_FEWEST = 100  # passages; the spread of fewer says nothing


@dataclass(frozen=True, eq=False)
class Corpus:
    """The passages of an index as far as an answer's flags need them; it outlives the index.

    fingerprint   of the index (:func:`fingerprint`)
    sample        vectors of passages that are spread evenly over the index, float32 [S, E]
    nearness      how near a passage's nearest neighbour is to it: the median standard score, see
                  :meth:`is_far`; -inf where there are too few passages to say
    calibration   what ``ragengine calibrate`` has put beside the index
    """

    fingerprint: str
    sample: FloatArray
    nearness: float
    calibration: ConfidenceModel | None = None

    def is_far(self, vector: FloatArray, best: float) -> bool:
        """Whether a question is farther from its best passage than passages are from their neighbours.

        Measured as the standard score (s - m) / sd of the best score s among the scores of the sample, with
        mean m and standard deviation sd, against :attr:`nearness`: half of the passages have no neighbour
        that is nearer.  A question about what a passage states stands out beyond that.

        Args:
            vector: q(x), float32 [E].
            best: the best score of all passages.
        """
        return float(standard_scores(self.sample, vector[None], np.array([best]))[0]) < self.nearness


def standard_scores(sample: FloatArray, vectors: FloatArray, best: NDArray[np.floating[Any]]) -> DoubleArray:
    """(s - m) / sd for each of Q vectors, float64 [Q].

    Args:
        sample: vectors of passages, float32 [S, E].
        vectors: float32 [Q, E], whose scores with the sample have mean m and standard deviation sd.
        best: s, the best scores, [Q].
    """
    scores = (vectors @ sample.T).astype(np.float64)
    spread = np.maximum(scores.std(axis=1), 1e-12)
    found: DoubleArray = (best - scores.mean(axis=1)) / spread
    return found


def median_nearness(sample: FloatArray, vectors: FloatArray, nearest: FloatArray, count: int) -> float:
    """:attr:`Corpus.nearness` by some passages' ``vectors`` and the scores of their nearest neighbours."""
    return float(np.median(standard_scores(sample, vectors, nearest))) if count >= _FEWEST else -math.inf


def spread_rows(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` rows, spread evenly from the first to the last."""
    rows: list[int] = np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64)).tolist()
    return rows


def fingerprint(content: Mapping[str, Any]) -> str:
    """The sha256 of what a folder holds, in hexadecimal: of JSON values that its answers depend on."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
