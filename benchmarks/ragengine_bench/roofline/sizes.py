"""The sizes of a bundle's networks, read from its graphs: what rooflines are computed from."""

from dataclasses import dataclass
from pathlib import Path

import onnx

from ragengine.bundle.bundle import Bundle

# Bytes of a weight as it is stored: int8 without its scales (one a row), int4 with scale and zero point a
# block of 32 (ragengine_export.weights.INT4_BLOCK_SIZE): (16 + 4 + 0.5) / 32.
BYTES_PER_WEIGHT = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0, "int4": 20.5 / 32}


@dataclass(frozen=True)
class BertSizes:
    """A question encoder; ``head`` is how many numbers its last linear layer gives, 0 where it has none."""

    hidden: int
    layers: int
    ffn: int
    head: int


@dataclass(frozen=True)
class BartSizes:
    """A generator; ``cached_bytes`` is the size of a number among its keys and values."""

    d_model: int
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
    generator: BartSizes
    precision: str

    @property
    def bytes_per_weight(self) -> float:
        return BYTES_PER_WEIGHT[self.precision]


def sizes_of(bundle: Path) -> Sizes:
    """Read the sizes from names and lengths of biases, which every precision stores alike."""
    manifest = Bundle.open(bundle, verify="size").manifest
    spec = manifest.generator
    encoder = _vectors(bundle / spec.path / "encoder.onnx")
    decoder = _vectors(bundle / spec.path / "decoder.onnx")
    question = _vectors(bundle / manifest.question_encoder.path / "encoder.onnx")
    return Sizes(
        BertSizes(
            hidden=question["embeddings.LayerNorm.bias"],
            layers=_count(question, "intermediate.dense.bias"),
            ffn=question["encoder.layer.0.intermediate.dense.bias"],
            head=question.get("encode_proj.bias", question.get("pooler.dense.bias", 0)),
        ),
        BartSizes(
            d_model=spec.width,
            encoder_layers=_count(encoder, "fc1.bias"),
            encoder_ffn=encoder["model.encoder.layers.0.fc1.bias"],
            decoder_layers=spec.num_decoder_layers,
            decoder_ffn=decoder["model.decoder.layers.0.fc1.bias"],
            vocabulary=spec.vocab_size,
            cached_bytes=2 if manifest.precision == "fp16" else 4,
        ),
        manifest.precision,
    )


def _vectors(graph: Path) -> dict[str, int]:
    model = onnx.load(str(graph), load_external_data=False)
    return {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if len(tensor.dims) == 1}


def _count(vectors: dict[str, int], ending: str) -> int:
    return sum(name.endswith(ending) for name in vectors)
