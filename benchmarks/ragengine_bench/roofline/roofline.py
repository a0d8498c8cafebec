"""The roofline of a stage: the least time that its multiplications and its memory traffic need.

    roofline = max(operations / GEMM rate, bytes / bandwidth)          rates measured in the same run

Operations are two for a multiplication and an addition; a linear layer [K -> N] on M rows has 2·M·K·N.
Only what the model's definition needs is counted: no padding, a beam attends to its own tokens, weights are
read once a stage or step, in the size they are stored in.  Softmax, norms, activations, the mixture, and the
host count nothing, so a roofline cannot be reached; how near a stage is says how much is left to gain.

    d model width, a attention width (d but for some T5), f feed-forward width, V vocabulary, L layers,
    s source tokens of a document, M = Q·D·B rows of a decoding step, t tokens of a beam, this step's included

    encode question    Σ_s  L (s (8da + 4df) + 4 s² a)  + 2 d E         (E: the head's, 0 without)
    encode documents   Σ_s  L_enc (s (8da + 4df) + 4 s² a)  +  s · L_dec · 4da          (cross keys, values)
    decoding step      M (L_dec (12da + 4df + 4 t a) + 2dV)  +  L_dec · Σ_s 4 B s a

In a decoder layer 12da is self-attention (q, k, v, out: 8da) and cross-attention (q, out: 4da).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ragengine_bench.roofline.sizes import BertSizes, GeneratorSizes, Sizes


@dataclass(frozen=True)
class Rates:
    """What this machine does: operations a second by precision, bytes a second."""

    operations: Mapping[str, float]
    bandwidth: float


@dataclass(frozen=True)
class Work:
    """Operations, and bytes that must be read or written."""

    operations: float
    bytes: float

    def seconds(self, rates: Rates, precision: str) -> float:
        """The roofline."""
        return max(self.operations / rates.operations[precision], self.bytes / rates.bandwidth)


def encode_question(sizes: BertSizes, lengths: Sequence[int], bytes_per_weight: float) -> Work:
    """A batch of questions of ``lengths`` tokens to their vectors."""
    weights = sizes.layers * _layer(sizes.hidden, sizes.hidden, sizes.ffn) + sizes.hidden * sizes.head
    operations = sum(_encoder(sizes.layers, sizes.hidden, sizes.hidden, sizes.ffn, s) for s in lengths)
    head = 2 * sizes.hidden * sizes.head * len(lengths)
    return Work(operations + head, weights * bytes_per_weight)


def encode_documents(sizes: GeneratorSizes, lengths: Sequence[int], bytes_per_weight: float) -> Work:
    """Documents of ``lengths`` tokens to every decoder layer's cross-attention keys and values."""
    d, a, tokens = sizes.d_model, sizes.inner, sum(lengths)
    cross = sizes.decoder_layers * 2 * d * a
    weights = sizes.encoder_layers * _layer(d, a, sizes.encoder_ffn) + cross
    operations = sum(_encoder(sizes.encoder_layers, d, a, sizes.encoder_ffn, s) for s in lengths)
    written = sizes.decoder_layers * 2 * tokens * a * sizes.cached_bytes
    return Work(operations + 2 * cross * tokens, weights * bytes_per_weight + written)


def decoding_step(sizes: GeneratorSizes, step: "StepSizes", bytes_per_weight: float) -> Work:
    """One token of every beam under every document."""
    d, a, layers, rows = sizes.d_model, sizes.inner, sizes.decoder_layers, step.documents * step.beams
    weights = layers * (6 * d * a + 2 * d * sizes.decoder_ffn) + d * sizes.vocabulary
    self_attention = layers * 4 * step.tokens * a * rows
    cross_attention = layers * 4 * step.beams * step.source_tokens * a
    cached = layers * 2 * a * sizes.cached_bytes * (rows * step.tokens + step.source_tokens)
    return Work(2 * weights * rows + self_attention + cross_attention, weights * bytes_per_weight + cached)


class StepSizes(NamedTuple):
    """A decoding step: Q·D documents of ``source_tokens`` together, B beams a document, ``tokens`` that each
    beam has read, this step's included."""

    documents: int
    source_tokens: int
    beams: int
    tokens: int


@dataclass(frozen=True)
class RunSizes:
    """What a run did, each batch and step by itself; a batch is the lengths of its texts in tokens."""

    questions: list[list[int]] = field(default_factory=list)
    documents: list[list[int]] = field(default_factory=list)
    steps: list[StepSizes] = field(default_factory=list)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "RunSizes":
        """From what an engine replied."""
        steps = [StepSizes(*step) for step in content["steps"]]
        return cls(content["questions"], content["documents"], steps)


def rooflines(sizes: Sizes, rates: Rates, run: RunSizes) -> dict[str, float]:
    """Seconds by stage; stages that multiply nothing have no roofline."""
    wide = sizes.bytes_per_weight
    work = {
        "encode question": [encode_question(sizes.question_encoder, batch, wide) for batch in run.questions],
        "encode documents": [encode_documents(sizes.generator, batch, wide) for batch in run.documents],
        "decode": [decoding_step(sizes.generator, step, wide) for step in run.steps],
    }
    return {
        stage: sum(part.seconds(rates, sizes.precision) for part in parts)
        for stage, parts in work.items()
        if parts
    }


def _layer(d: int, a: int, ffn: int) -> int:
    """Weights of a self-attention layer: q, k, v, out and the two of the feed-forward part."""
    return 4 * d * a + 2 * d * ffn


def _encoder(layers: int, d: int, a: int, ffn: int, length: int) -> int:
    return layers * (2 * length * _layer(d, a, ffn) + 4 * length * length * a)
