"""The works of the engine's calls: what becomes of a question that has been encoded and searched."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ragengine import Answer, AnswerToken, Document, GenerationOptions, PreparedQuestion, RagEngine
from ragengine.arrays import FloatArray
from ragengine.retrieval.passage_filter import PassageFilter
from ragengine.runtime.cancellation import CancelSignal

Event: TypeAlias = tuple[Literal["documents"], tuple[Document, ...]] | tuple[Literal["token"], AnswerToken]
"""What a stream tells before its end: first the documents, then each token."""


@dataclass(frozen=True)
class Reads:
    """Which documents a question reads: given ones, or those that are found with a filter or without."""

    documents: tuple[Document, ...] | None = None
    doc_pruning: float | None = None
    filter: PassageFilter | None = None

    def searched(self, n_docs: int) -> int:
        """How many documents to search for together with other questions, whose filters are others."""
        return n_docs if self.documents is None and self.filter is None else 0

    @property
    def arguments(self) -> dict[str, Any]:
        """As the engine's calls take it."""
        return {"documents": self.documents, "doc_pruning": self.doc_pruning, "filter": self.filter}


class _Alone:
    """Work that is never computed with others'."""

    group: Hashable | None = None

    def together(self, prepared: list[PreparedQuestion], cancel: CancelSignal) -> list[Any]:
        raise NotImplementedError  # without a group nobody asks


@dataclass(frozen=True, eq=False)
class AnswerWork:
    """`RagEngine.generate`."""

    engine: RagEngine
    options: GenerationOptions
    reads: Reads
    adaptive_reading: bool = False

    @property
    def group(self) -> Hashable | None:
        """Answers with equal options from documents of the index; a batch would change what is drawn."""
        if self.reads.documents is not None or self.options.do_sample:
            return None
        return "answer", self.options, self.reads, self.adaptive_reading

    def alone(self, prepared: PreparedQuestion | None, cancel: CancelSignal) -> Answer:
        assert prepared is not None
        answer: Answer = self.engine.generate(
            prepared,
            options=self.options,
            **self.reads.arguments,
            adaptive_reading=self.adaptive_reading,
            cancel=cancel,
        )
        return answer

    def together(self, prepared: list[PreparedQuestion], cancel: CancelSignal) -> list[Answer]:
        answers: list[Answer] = self.engine.generate(
            prepared,
            options=self.options,
            **self.reads.arguments,
            adaptive_reading=self.adaptive_reading,
            cancel=cancel,
        )
        return answers


@dataclass(frozen=True, eq=False)
class StreamWork(_Alone):
    """`RagEngine.stream`: ``tell`` is called in the executor's thread with each event before the end."""

    engine: RagEngine
    options: GenerationOptions
    reads: Reads
    tell: Callable[[Event], None]

    def alone(self, prepared: PreparedQuestion | None, cancel: CancelSignal) -> Answer:
        assert prepared is not None
        with self.engine.stream(
            prepared,
            options=self.options,
            **self.reads.arguments,
            cancel=cancel,
        ) as stream:
            self.tell(("documents", stream.documents))
            for token in stream:
                self.tell(("token", token))
            return stream.answer()


@dataclass(frozen=True, eq=False)
class RetrieveWork(_Alone):
    """`RagEngine.retrieve`: the documents and how long the stages took."""

    engine: RagEngine
    n_docs: int
    filter: PassageFilter | None

    def alone(
        self, prepared: PreparedQuestion | None, cancel: CancelSignal
    ) -> tuple[list[Document], dict[str, float]]:
        assert prepared is not None
        found = self.engine.retrieve(
            prepared,
            self.n_docs,
            filter=self.filter,
            cancel=cancel,
        )
        return found, prepared.encoded.timings_ms


@dataclass(frozen=True, eq=False)
class ScoreWork(_Alone):
    """`RagEngine.score` of one answer."""

    engine: RagEngine
    answer: str | list[int]
    options: GenerationOptions
    reads: Reads
    with_bos: bool | None
    exclude_bos_score: bool | None

    def alone(self, prepared: PreparedQuestion | None, cancel: CancelSignal) -> float:
        assert prepared is not None
        score: float = self.engine.score(
            prepared,
            self.answer,
            options=self.options,
            **self.reads.arguments,
            with_bos=self.with_bos,
            exclude_bos_score=self.exclude_bos_score,
            cancel=cancel,
        )
        return score


@dataclass(frozen=True, eq=False)
class ClassifyWork(_Alone):
    """`RagEngine.classify`."""

    engine: RagEngine
    labels: list[str]
    options: GenerationOptions
    reads: Reads
    with_bos: bool | None

    def alone(self, prepared: PreparedQuestion | None, cancel: CancelSignal) -> dict[str, float]:
        assert prepared is not None
        return self.engine.classify(
            prepared,
            self.labels,
            options=self.options,
            **self.reads.arguments,
            with_bos=self.with_bos,
            cancel=cancel,
        )


@dataclass(frozen=True, eq=False)
class EmbedQuestionWork(_Alone):
    """q(x), which the preparation has computed: float32 [E]."""

    def alone(self, prepared: PreparedQuestion | None, cancel: CancelSignal) -> FloatArray:
        assert prepared is not None
        vector: FloatArray = prepared.encoded.vectors[0]
        return vector


@dataclass(frozen=True, eq=False)
class CallWork(_Alone):
    """A call without a question: what a shard is asked."""

    call: Callable[[], bytes]

    def alone(self, prepared: PreparedQuestion | None, cancel: CancelSignal) -> bytes:
        return self.call()


@dataclass(frozen=True, eq=False)
class EmbedPassagesWork(_Alone):
    """`RagEngine.encode_passages`: d(z), float32 [N, E]."""

    engine: RagEngine
    documents: list[Document]

    def alone(self, prepared: PreparedQuestion | None, cancel: CancelSignal) -> FloatArray:
        return self.engine.encode_passages(self.documents, cancel=cancel)
