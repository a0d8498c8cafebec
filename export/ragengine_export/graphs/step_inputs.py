"""What the decoder step is given, by name."""

from dataclasses import dataclass

import onnx_ir as ir

from ragengine_export.graphs.layout import Layout


@dataclass(frozen=True)
class FixedInputs:
    """What the step of fixed capacity takes besides.

    places        int64 [Q·D, H, B, K]  where along P this step's keys and values are written
    context_bias  [Q·D, 1, B, S]        0 for a token of a document, very negative for padding
    best_scores   float32 [Q, 1]        the best of ``beam_scores``
    """

    places: ir.Value
    context_bias: ir.Value
    best_scores: ir.Value


@dataclass(frozen=True)
class StepInputs:
    """The decoder step's inputs; their shapes are in `BartDecoder` and `Mixture`.

    ``fixed`` is None where the past grows, and ``context_attention_mask`` where it does not.
    """

    token_ids: ir.Value
    own_past: ir.Value
    position: ir.Value
    context_attention_mask: ir.Value | None
    log_weights: ir.Value
    beam_scores: ir.Value
    num_candidates: ir.Value
    probe_ids: ir.Value
    cross: list[tuple[ir.Value, ir.Value]]
    past: list[tuple[ir.Value, ir.Value]]
    layout: Layout
    fixed: FixedInputs | None = None
