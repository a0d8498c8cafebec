"""Questions that are searched together, and leave when they are done.

A step computes a row for every beam of every question of the batch, so a question that has its answer costs
as much as one that has not.  Leaving copies keys and values of those that stay: the questions that are done
wait until they are a quarter of the batch, so that all copies of a search together are at most three batches.
"""

from typing import Final

import numpy as np

from ragengine.arrays import BoolArray, IntArray
from ragengine.generation.search.outputs import Output

_LEAVING: Final = 4
"""The part of a batch that leaves together: one in so many."""


def leave_now(done: BoolArray) -> bool:
    """Whether the questions that are ``done``, bool [Q], leave the batch."""
    return _LEAVING * int(done.sum()) >= len(done)


class Batch:
    """Which questions are searched still, and the outputs of those that have left."""

    def __init__(self, num_questions: int) -> None:
        self.outputs: list[list[Output]] = [[] for _ in range(num_questions)]
        """For each question that has left its outputs, best first."""
        self._numbers: IntArray = np.arange(num_questions)

    def collect(self, done: BoolArray, outputs: list[list[Output]]) -> None:
        """Take the ``outputs`` of those of the present questions that are ``done``, bool [Q]."""
        for place in np.flatnonzero(done).tolist():
            self.outputs[self._numbers[place]] = outputs[place]

    def keep(self, questions: IntArray) -> None:
        """Go on with the questions at these places alone, in that order."""
        self._numbers = self._numbers[questions]
