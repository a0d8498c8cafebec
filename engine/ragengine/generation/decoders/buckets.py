"""The sizes in which the static decoder is made, and how many of them may be captured as CUDA graphs."""

import itertools
import threading
from dataclasses import dataclass

from ragengine.bundle.manifest import GeneratorSpec
from ragengine.messages import log

SOURCE_MULTIPLE = 32  # tokens of a document
STEPS_MULTIPLE = 16  # tokens of an output
MAX_GRAPHS = 32
"""CUDA graphs that one generator may hold.  Each keeps its buffers; docs/guides/gpu.md says how large."""
NOT_CAPTURED = -1
"""The graph number that makes onnxruntime run a step without capture (`gpu_graph_id`)."""


@dataclass(frozen=True)
class Bucket:
    """Sizes of a search's buffers: Q questions of D documents, B beams, S source tokens, T steps.

    A search is padded up to them, so that few buckets serve many searches.
    """

    questions: int
    documents: int
    beams: int
    source: int
    steps: int

    @classmethod
    def holding(cls, questions: int, documents: int, beams: int, source: int, steps: int) -> "Bucket":
        """The smallest bucket for these sizes.  ``source`` is padded where documents are read."""
        return cls(
            questions=power_of_two(questions),
            documents=documents,
            beams=beams if beams <= 4 else _multiple(beams, 4),
            source=source,
            steps=_multiple(steps, STEPS_MULTIPLE),
        )

    @property
    def rows(self) -> int:
        """Q·D."""
        return self.questions * self.documents

    @property
    def capacity(self) -> int:
        """P, the tokens that all beams of all steps read."""
        return self.beams * self.steps

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each axis of :mod:`ragengine.bundle.signatures` that a bucket fixes."""
        return {
            "Q": self.questions,
            "D": self.documents,
            "Q*D": self.rows,
            "B": self.beams,
            "S": self.source,
            "P": self.capacity,
        }

    def buffer_bytes(self, spec: GeneratorSpec, itemsize: int) -> int:
        """Bytes on the device of the keys and values, of documents and past, in numbers of ``itemsize``."""
        width = spec.num_heads * spec.head_size
        return 2 * spec.num_decoder_layers * width * itemsize * self.rows * (self.source + self.capacity)


def padded_source(length: int, longest: int) -> int:
    """The source length S that documents of ``length`` tokens are padded to; the model takes ``longest``."""
    return min(_multiple(length, SOURCE_MULTIPLE), longest)


def power_of_two(number: int) -> int:
    """The smallest power of two that is not less than ``number``."""
    return 1 << max(0, number - 1).bit_length()


def _multiple(number: int, of: int) -> int:
    return -(-number // of) * of


class GraphNumbers:
    """Hands out at most ``limit`` numbers of captured graphs.  Safe to use from several threads.

    A session opened without CUDA graphs ignores the numbers; they still bound the buffers that are kept.
    """

    def __init__(self, limit: int = MAX_GRAPHS) -> None:
        self.limit = limit
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._warned = False

    def take(self, bucket: Bucket) -> int:
        """A number that no other graph has, or ``NOT_CAPTURED``; the first of those is logged."""
        with self._lock:
            number = next(self._numbers)
            if number <= self.limit:
                return number
            first, self._warned = not self._warned, True
        if first:
            log.warning(
                "All %d CUDA graphs of this generator are taken; %s and other new shapes run without one, "
                "which is slower: ask for fewer different batch sizes, n_docs, beams and lengths.",
                self.limit, bucket,
            )  # fmt: skip
        return NOT_CAPTURED
