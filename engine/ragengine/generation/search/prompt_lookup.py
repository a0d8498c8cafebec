"""Tokens that the documents suggest: what followed the last tokens of an output where they occur in a prompt.

`PromptLookupCandidateGenerator` of transformers, which looks in the prompt of a decoder-only model.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from ragengine.arrays import IntArray

_NGRAM_SIZE: Final = 2
"""What transformers takes where ``max_matching_ngram_size`` is None."""


class PromptLookup:
    """Looks for the end of an output in the documents of a question, best first."""

    def __init__(self, context_ids: IntArray, ngram_size: int | None, ends: Iterable[int]) -> None:
        """``context_ids`` int64 [D, S], negative for padding; suggestions stop before tokens of ``ends``."""
        self._documents: list[list[int]] = [[t for t in row if t >= 0] for row in context_ids.tolist()]
        self._ngram_size = _NGRAM_SIZE if ngram_size is None else ngram_size
        self._ends = frozenset(ends)

    def suggested(self, output: Sequence[int], count: int) -> list[int]:
        """At most ``count`` tokens that may follow ``output``, which has no start token.

        After the longest of its last n-grams that is found, in the first document that has it.
        """
        for size in range(min(self._ngram_size, len(output)), 0, -1):
            for document in self._documents:
                if found := self._after(document, list(output[-size:]), count):
                    return found
        return []

    def _after(self, document: list[int], ngram: list[int], count: int) -> list[int]:
        """What follows the first place of ``ngram`` in ``document`` that anything follows."""
        place, size = -1, len(ngram)
        while ngram[0] in document[place + 1 :]:
            place = document.index(ngram[0], place + 1)
            if document[place : place + size] == ngram:
                found = self._until_end(document[place + size : place + size + count])
                if found:
                    return found
        return []

    def _until_end(self, tokens: list[int]) -> list[int]:
        ends = (number for number, token in enumerate(tokens) if token in self._ends)
        return tokens[: next(ends, len(tokens))]
