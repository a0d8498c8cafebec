"""The inputs and outputs of a bundle's graphs, declared once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ragengine.bundle.onnx_reader import (
    BOOL,
    FLOAT,
    INT64,
    Value,
)

if TYPE_CHECKING:
    from ragengine.bundle.manifest import GeneratorSpec


Values: TypeAlias = dict[str, Value]


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a graph: an axis that is a text may be any symbol, but no number."""

    inputs: Values
    outputs: Values


def text_encoder_signature(dimension: int) -> Signature:
    """q(x) or d(z): token ids to vectors."""
    tokens = Value(INT64, ("N", "S"))
    vectors = Value(FLOAT, ("N", dimension))
    return Signature({"input_ids": tokens, "attention_mask": tokens}, {"vectors": vectors})


def generator_signatures(spec: "GeneratorSpec", number: int) -> dict[str, Signature]:
    """The generator's graphs by file name; ``number`` is the data type that they compute in.

    ``ragengine_export.graphs.models`` writes them, :mod:`ragengine.generation.decoders` feeds them.
    """
    d_model = spec.num_heads * spec.head_size
    tokens, states = Value(INT64, ("N", "S")), Value(number, ("N", "S", d_model))
    encoder = Signature({"input_ids": tokens, "attention_mask": tokens}, {"states": states})
    cross = Signature({"states": states}, _layers("cross", "S", spec, number))
    return {
        "encoder.onnx": encoder,
        "cross.onnx": cross,
        "decoder.onnx": _dynamic_decoder(spec, number),
        "step.onnx": _static_decoder(spec, number),
    }


def _dynamic_decoder(spec: "GeneratorSpec", number: int) -> Signature:
    inputs = _step_inputs(spec, number) | {"context_attention_mask": Value(INT64, ("Q", "D", "S"))}
    return Signature(inputs, _step_outputs(spec, number))


def _static_decoder(spec: "GeneratorSpec", number: int) -> Signature:
    shapes = {"each_document": 4, "by_row": 3, "by_question": 4, "past_bias": 4, "candidates": 3}
    shapes |= {"probes": 4, "update": 4}
    inputs = _step_inputs(spec, number) | {
        "slots": Value(INT64, ("B",)),
        "best_scores": Value(FLOAT, ("Q", 1)),
        "context_bias": Value(number, ("Q*D", 1, "B", "S")),
    }
    inputs |= {f"shape_{name}": Value(INT64, (length,)) for name, length in shapes.items()}
    return Signature(inputs, _step_outputs(spec, number))


def _step_inputs(spec: "GeneratorSpec", number: int) -> Values:
    """The inputs that both decoders have."""
    inputs = {
        "token_ids": Value(INT64, ("Q", "B")),
        "own_past": Value(BOOL, ("Q", "B", "P")),
        "position": Value(INT64, (1,)),
        "log_weights": Value(FLOAT, ("Q", "D", "B")),
        "beam_scores": Value(FLOAT, ("Q", "B")),
        "num_candidates": Value(INT64, (1,)),
        "probe_ids": Value(INT64, ("Q", "B", "probes")),
    }
    return inputs | _layers("cross", "S", spec, number) | _layers("past", "P", spec, number)


def _step_outputs(spec: "GeneratorSpec", number: int) -> Values:
    outputs = {
        "candidate_scores": Value(FLOAT, ("Q", "C")),
        "candidate_beams": Value(INT64, ("Q", "C")),
        "candidate_tokens": Value(INT64, ("Q", "C")),
        "candidate_log_probs": Value(FLOAT, ("Q", "D", "C")),
        "probe_log_probs": Value(FLOAT, ("Q", "D", "B", "probes")),
    }
    return outputs | _layers("present", "P", spec, number)


def _layers(kind: str, length: str, spec: "GeneratorSpec", number: int) -> Values:
    """Each layer's key and value, [Q·D, H, length, K]."""
    value = Value(number, ("Q*D", spec.num_heads, length, spec.head_size))
    layers = range(spec.num_decoder_layers)
    return {f"{kind}_{part}_{layer}": value for layer in layers for part in ("key", "value")}
