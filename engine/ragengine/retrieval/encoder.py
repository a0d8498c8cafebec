"""The encoders: d(z) of a passage and q(x) of a question (paper, section 2.2)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ragengine.arrays import FloatArray
from ragengine.bundle.bundle import Bundle
from ragengine.bundle.device import graph_device
from ragengine.bundle.manifest import EncoderSpec
from ragengine.errors import GraphOutputError
from ragengine.runtime.cancellation import NEVER, Stop
from ragengine.runtime.devices import Device
from ragengine.runtime.sessions import InferenceSession, create_session, run_arrays
from ragengine.tokenization import Encoded, Tokenizer

BATCH_TOKENS = 1024
"""Tokens an encoder reads at once, with their padding: they fit a CPU's caches; a GPU is faster with more."""

_QUESTIONS_AT_ONCE = 256  # a bound on memory

_SHORTEST = 1e-12
"""What the norm of a vector is at least, in torch.nn.functional.normalize."""


@dataclass(frozen=True, eq=False)
class EncodedQuestions:
    """Q questions as the index and the generator take them.

    vectors     q(x), float32 [Q, E]
    texts       as the generator reads them
    truncated   for each question, whether the encoder cut something off
    timings_ms  milliseconds that tokenizing and encoding them took
    """

    vectors: FloatArray
    texts: list[str]
    truncated: list[bool]
    timings_ms: dict[str, float] = field(default_factory=dict)


class TextEncoder:
    """An encoder of texts to vectors, from a bundle.  Safe to use from several threads."""

    def __init__(
        self, tokenizer: Tokenizer, session: InferenceSession, spec: EncoderSpec, *, apart: bool = False
    ) -> None:
        """``apart`` says that texts read at once share a scale, so that each is read by itself."""
        self.tokenizer = tokenizer
        self._apart = apart
        self.spec = spec
        self._session = session

    @classmethod
    def load(
        cls, bundle: Bundle, spec: EncoderSpec, *, device: Device = "auto", threads: int | None = None
    ) -> "TextEncoder":
        """Load the encoder that ``spec`` (of this bundle's manifest) describes."""
        tokenizer = Tokenizer(bundle.file(spec.path, "tokenizer.json"), spec.tokenizer)
        session = create_session(
            bundle.file(spec.path, spec.graph), device=graph_device(bundle, device), threads=threads
        )
        return cls(tokenizer, session, spec, apart=bundle.manifest.texts_share_a_scale)

    @property
    def dimension(self) -> int:
        """E, the number of components of a vector."""
        return self.spec.dimension

    def tokenize_questions(self, questions: Sequence[str], stop: Stop = NEVER) -> list[Encoded]:
        """Tokens of questions as the encoder reads them, and as they are without its prompt."""
        own = self.tokenizer.encode(questions, stop)
        if not self.spec.prompt:
            return own
        prompted = self.tokenizer.encode([self.spec.prompt + question for question in questions], stop)
        return [
            Encoded(read.ids, read.truncated, alone.ids) for read, alone in zip(prompted, own, strict=True)
        ]

    def tokenize_passages(self, passages: Sequence[tuple[str, str]], stop: Stop = NEVER) -> list[Encoded]:
        """Tokens of (title, text) pairs: ``[CLS] title [SEP] text [SEP]``, or one text after the prompt."""
        if self.spec.passages == "pair":
            return self.tokenizer.encode(passages, stop)
        texts = [f"{title} {text}" if title else text for title, text in passages]
        return self.tokenizer.encode([self.spec.prompt + text for text in texts], stop)

    def encode_questions(self, questions: Sequence[Encoded], stop: Stop = NEVER) -> FloatArray:
        """q(x) of tokenized questions, float32 [Q, E]; ``stop`` is asked before each batch."""
        vectors = np.empty((len(questions), self.dimension), np.float32)
        at_once = 1 if self._apart else _QUESTIONS_AT_ONCE
        for start in range(0, len(questions), at_once):
            stop.check(f"after {start} of {len(questions)} questions were encoded")
            part = slice(start, start + at_once)
            vectors[part] = self.encode_tokens(questions[part])
        return vectors

    def question_text(self, tokens: Encoded) -> str:
        """A question as the generator reads it: decoded from the encoder's own tokens."""
        return self.tokenizer.decode(tokens.own_ids)

    def encode_passages(self, passages: Sequence[tuple[str, str]]) -> FloatArray:
        """d(z) of (title, text) pairs, float32 [N, E]."""
        return self.encode_tokens(self.tokenize_passages(passages))

    def encode_by_length(
        self,
        passages: Sequence[tuple[str, str]],
        batch_tokens: int = BATCH_TOKENS,
        stop: Stop = NEVER,
        on_rows: Callable[[int], object] = lambda rows: None,
    ) -> FloatArray:
        """d(z) of (title, text) pairs, float32 [N, E], in batches of up to ``batch_tokens`` with their
        padding.

        Texts of similar length are read together, so that little is padded, and short ones in large batches;
        in int8 each by itself.
        ``stop`` is asked before each batch, and while texts are tokenized; ``on_rows`` is told how many have
        their vector after each.
        """
        texts = self.tokenize_passages(passages, stop)
        by_length = sorted(range(len(texts)), key=lambda row: len(texts[row].ids))
        vectors = np.empty((len(texts), self.dimension), np.float32)
        batch: list[int] = []
        for done, row in enumerate(by_length):
            if batch and (self._apart or (len(batch) + 1) * len(texts[row].ids) > batch_tokens):
                stop.check("while the documents were scored")
                vectors[batch] = self.encode_tokens([texts[other] for other in batch])
                on_rows(done)
                batch = []
            batch.append(row)
        if batch:
            vectors[batch] = self.encode_tokens([texts[other] for other in batch])
        return vectors

    def encode_tokens(self, texts: Sequence[Encoded]) -> FloatArray:
        """Vectors of texts that are tokens already, in one batch: float32 [N, E].

        Where the similarity is cosine they have the norm 1, so that an inner product is the cosine.
        """
        input_ids, attention_mask = self.tokenizer.pad([text.ids for text in texts])
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        vectors: FloatArray = run_arrays(self._session, feeds, "vectors")
        if vectors.shape != (len(texts), self.dimension):
            raise GraphOutputError(
                f"The encoder {self.spec.name} returned vectors {list(vectors.shape)} for {len(texts)} texts "
                f"and {self.dimension} dimensions; export the bundle again."
            )
        if not np.isfinite(vectors).all():
            raise GraphOutputError(f"The encoder {self.spec.name} returned NaN or infinite numbers.")
        return comparable(vectors, self.spec)


def comparable(vectors: FloatArray, spec: EncoderSpec) -> FloatArray:
    """Vectors of an encoder [N, E] as they are stored and searched: with the norm 1 for cosine."""
    if spec.similarity != "cosine":
        return vectors
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    unit: FloatArray = (vectors / np.maximum(norms, _SHORTEST)).astype(np.float32)
    return unit
