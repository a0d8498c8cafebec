"""The sizes of a bundle's networks, read from its graphs: what rooflines are computed from."""

import re
from dataclasses import dataclass
from pathlib import Path

import onnx

from ragengine.bundle.bundle import Bundle

# Bytes of a weight as it is stored: int8 without its scales (one a row), int4 with scale and zero point a
# block of 32 (ragengine_export.weights.INT4_BLOCK_SIZE): (16 + 4 + 0.5) / 32.
BYTES_PER_WEIGHT = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0, "int4": 20.5 / 32}

_ENTERING = re.compile(r"\.(layers|block)\.0\..*(fc1|wi|wi_0|wi_1)\.weight$")
"""The matrices of the first layer that make the feed-forward part's inner states."""


@dataclass(frozen=True)
class BertSizes:
    """A question encoder; ``head`` is how many numbers its last linear layer gives, 0 where it has none."""

    hidden: int
    layers: int
    ffn: int
    head: int


@dataclass(frozen=True)
class GeneratorSizes:
    """A generator.

    inner         width of queries, keys and values
    encoder_ffn   width of the feed-forward layers; half as much again where a third matrix gates it
    cached_bytes  size of a number among its keys and values
    """

    d_model: int
    inner: int
    encoder_layers: int
    encoder_ffn: int
    decoder_layers: int
    decoder_ffn: int
    vocabulary: int
    cached_bytes: int


@dataclass(frozen=True)
class Sizes:
    """Both networks of a bundle, and the precision their weights are stored in."""

    question_encoder: BertSizes
    generator: GeneratorSizes
    precision: str

    @property
    def bytes_per_weight(self) -> float:
        return BYTES_PER_WEIGHT[self.precision]


def sizes_of(bundle: Path) -> Sizes:
    """Read the sizes from the names and shapes of what the graphs store."""
    manifest = Bundle.open(bundle, verify="size").manifest
    spec = manifest.generator
    encoder = _stored(bundle / spec.path / "encoder.onnx")
    decoder = _stored(bundle / spec.path / "decoder.onnx")
    question = _stored(bundle / manifest.question_encoder.path / "encoder.onnx")
    return Sizes(
        BertSizes(
            hidden=question["embeddings.LayerNorm.bias"][0],
            layers=_count(question, "intermediate.dense.bias"),
            ffn=question["encoder.layer.0.intermediate.dense.bias"][0],
            head=question.get("encode_proj.bias", question.get("pooler.dense.bias", (0,)))[0],
        ),
        GeneratorSizes(
            d_model=spec.width,
            inner=spec.num_heads * spec.head_size,
            encoder_layers=_count(encoder, "fc1.weight") or _count(encoder, "DenseReluDense.wo.weight"),
            encoder_ffn=_feed_forward(encoder),
            decoder_layers=spec.num_decoder_layers,
            decoder_ffn=_feed_forward(decoder),
            vocabulary=spec.vocab_size,
            cached_bytes=2 if manifest.precision == "fp16" else 4,
        ),
        manifest.precision,
    )


def _stored(graph: Path) -> dict[str, tuple[int, ...]]:
    model = onnx.load(str(graph), load_external_data=False)
    return {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


def _feed_forward(stored: dict[str, tuple[int, ...]]) -> int:
    """The width of the first layer's feed-forward part, half as much again where it is gated."""
    widths = [_outputs(stored, name) for name in stored if _ENTERING.search(name)]
    return widths[0] * (1 + len(widths)) // 2


def _outputs(stored: dict[str, tuple[int, ...]], name: str) -> int:
    """The rows of a matrix, which int8 stores transposed and all others have first."""
    return stored.get(f"{name}_scales", stored[name])[0]


def _count(stored: dict[str, tuple[int, ...]], ending: str) -> int:
    return sum(name.endswith(ending) for name in stored)
