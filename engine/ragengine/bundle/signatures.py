"""The inputs and outputs of a bundle's graphs: names, order, types and axes, declared once.

``ragengine_export.graphs.models`` writes graphs with these signatures, :mod:`ragengine.bundle.checks` refuses
a bundle whose graphs have others, and :mod:`ragengine.generation.decoders` feeds them by these names.

An axis is a number, or a symbol:

    N  texts        S  source tokens        Q  questions        D  documents of a question
    B  beams        P  tokens of the past   C  candidates       probes  tokens asked for by name
    T  1, or B: a position for all beams, or one for each
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from ragengine.bundle.manifest import STEP_GRAPH, GeneratorSpec
from ragengine.bundle.onnx_reader import BOOL, FLOAT, FLOAT16, INT64, UINT8, Value

Values: TypeAlias = dict[str, Value]
"""Inputs or outputs by name, in the graph's order."""
Axes: TypeAlias = tuple[int | str, ...]
LayerKind: TypeAlias = Literal["cross", "past", "present"]

NUMPY_TYPES: Final[Mapping[int, type[Any]]] = {
    FLOAT: np.float32,
    FLOAT16: np.float16,
    UINT8: np.uint8,
    INT64: np.int64,
    BOOL: np.bool_,
}

ENCODED_TEXTS: Final[Values] = {
    "input_ids": Value(INT64, ("N", "S")),
    "attention_mask": Value(INT64, ("N", "S")),
}
"""The inputs of every encoder."""

STEP_INPUTS: Final[Values] = {
    "token_ids": Value(INT64, ("Q", "B")),
    "position": Value(INT64, (1,)),
    "log_weights": Value(FLOAT, ("Q", "D", "B")),
    "beam_scores": Value(FLOAT, ("Q", "B")),
    "num_candidates": Value(INT64, (1,)),
    "probe_ids": Value(INT64, ("Q", "B", "probes")),
}
"""What both decoders are fed each step, beside keys, values and masks."""

MIXTURE_OUTPUTS: Final[Values] = {
    "candidate_scores": Value(FLOAT, ("Q", "C")),
    "candidate_beams": Value(INT64, ("Q", "C")),
    "candidate_tokens": Value(INT64, ("Q", "C")),
    "candidate_log_probs": Value(FLOAT, ("Q", "D", "C")),
    "probe_log_probs": Value(FLOAT, ("Q", "D", "B", "probes")),
}
"""What both decoders return each step, before the present of their layers."""

HIDDEN_HALF: Final = -32752.0
"""What is added in float16 to the scores of hidden tokens: half the least number, since a score is added.

The least number itself would become -inf; a row that hides all, such as that of a beam that is padding, is
then NaN, and NaN times a weight of zero is NaN.
"""

PART_WIDTH: Final = 1024
"""Tokens of a part of the vocabulary, of which the static decoder first takes the best candidates."""


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a graph; where an axis is a symbol, a graph may use another symbol.

    ``optional`` are inputs that graphs of older bundles lack, ``older`` inputs as these have them.
    """

    inputs: Values
    outputs: Values
    optional: frozenset[str] = frozenset()
    older: Values = field(default_factory=dict)


def text_encoder_signature(dimension: int) -> Signature:
    """q(x) or d(z): token ids to vectors."""
    return Signature(ENCODED_TEXTS, {"vectors": Value(FLOAT, ("N", dimension))})


def generator_signatures(spec: GeneratorSpec, data_type: int) -> dict[str, Signature]:
    """The generator's graphs by file name, which compute in ``data_type`` (of `TensorProto.DataType`)."""
    encoded = {"states": Value(data_type, ("N", "S", spec.width))}
    documents = {"states": Value(data_type, ("Q*D", "S", spec.width))}
    return {
        "encoder.onnx": Signature(ENCODED_TEXTS, encoded),
        "cross.onnx": Signature(documents, memory_values(spec, data_type)),
        "decoder.onnx": _dynamic_decoder(spec, data_type),
        STEP_GRAPH: _static_decoder(spec, data_type),
    }


def memory_values(spec: GeneratorSpec, data_type: int) -> Values:
    """What the decoder keeps of documents: each layer's key and value of every token.

    In int8 each has a scale a token and head and is stored plus 128; keys lie as their product reads them.
    """
    if spec.memory == "float":
        return _layers("cross", "S", spec, data_type)
    q, h, k = "Q*D", spec.num_heads, spec.head_size
    kept: Values = {}
    for layer in range(spec.num_decoder_layers):
        kept |= {
            f"cross_key_{layer}": Value(UINT8, (q, h, k, "S")),
            f"cross_key_scale_{layer}": Value(FLOAT, (q, h, 1, "S")),
            f"cross_value_{layer}": Value(UINT8, (q, h, "S", k)),
            f"cross_value_scale_{layer}": Value(FLOAT, (q, h, 1, "S")),
        }
    return kept


def layer_names(kind: LayerKind, spec: GeneratorSpec) -> list[str]:
    """Key and value of every decoder layer: ``past_key_0``, ``past_value_0``, ``past_key_1``, ..."""
    layers = range(spec.num_decoder_layers)
    return [f"{kind}_{part}_{layer}" for layer in layers for part in ("key", "value")]


def shape_inputs(spec: GeneratorSpec) -> dict[str, Axes]:
    """The shapes that the static decoder takes as inputs, because a captured graph computes none.

    Each input is the int64 vector of these axes; ``Q*D`` is one number.
    """
    return {
        "shape_each_document": ("Q", "D", 1, 1),
        "shape_by_row": ("Q*D", "B", spec.width),
        "shape_by_question": ("Q", "D", "B", spec.width),
        "shape_past_bias": ("Q*D", spec.bias_heads, "B", "P"),
        "shape_candidates": ("Q", "D", "C"),
        "shape_probes": ("Q", "B", "D", "probes"),
        "shape_update": ("Q*D", spec.num_heads, "B", spec.head_size),
    }


def host_values(spec: GeneratorSpec, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """What the static decoder reads on the host: shapes, and how many candidates are wanted, C."""
    values = {name: sized(axes, sizes) for name, axes in shape_inputs(spec).items()}
    return values | {"num_candidates": (sizes["C"],), "part_candidates": (min(sizes["C"], PART_WIDTH),)}


def sized(axes: Axes, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The axes as numbers, given the size of every symbol among them."""
    return tuple(axis if isinstance(axis, int) else sizes[axis] for axis in axes)


def array_of(value: Value, sizes: Mapping[str, int]) -> tuple[tuple[int, ...], type[Any]]:
    """Shape and numpy type of the array that an input or output is."""
    return sized(value.axes or (), sizes), NUMPY_TYPES[value.data_type]


def _dynamic_decoder(spec: GeneratorSpec, data_type: int) -> Signature:
    """The decoder whose past grows by the B tokens of each step.

    With a position for each beam, a step can read several tokens of one output.
    """
    inputs = {
        **STEP_INPUTS,
        "position": Value(INT64, ("T",)),
        "own_past": Value(BOOL, ("Q", "B", "P+B")),
        "context_attention_mask": Value(INT64, ("Q", "D", "S")),
        **memory_values(spec, data_type),
        **_layers("past", "P", spec, data_type),
    }
    outputs = MIXTURE_OUTPUTS | _layers("present", "P+B", spec, data_type)
    return Signature(inputs, outputs, older={"position": STEP_INPUTS["position"]})


def _static_decoder(spec: GeneratorSpec, data_type: int) -> Signature:
    """The decoder with room for P tokens: ``slots`` says where those of a step are written.

    ``part_candidates`` is the number of candidates of each part of the vocabulary.
    """
    inputs = {
        **STEP_INPUTS,
        "own_past": Value(BOOL, ("Q", "B", "P")),
        "slots": Value(INT64, ("B",)),
        "best_scores": Value(FLOAT, ("Q", 1)),
        "part_candidates": Value(INT64, (1,)),
        "context_bias": Value(data_type, ("Q*D", 1, "B", "S")),
        **{name: Value(INT64, (len(axes),)) for name, axes in shape_inputs(spec).items()},
        **memory_values(spec, data_type),
        **_layers("past", "P", spec, data_type),
    }
    outputs = MIXTURE_OUTPUTS | _layers("present", "P", spec, data_type)
    return Signature(inputs, outputs, optional=frozenset({"part_candidates"}))


def _layers(kind: LayerKind, length: str, spec: GeneratorSpec, data_type: int) -> Values:
    """Each layer's key and value, [Q·D, H, length, K]."""
    value = Value(data_type, ("Q*D", spec.num_heads, length, spec.head_size))
    return dict.fromkeys(layer_names(kind, spec), value)
