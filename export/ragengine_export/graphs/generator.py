"""The generator (paper, section 2.3): what the graphs of every family share.

    encoder:  input_ids [N, S] ──► encoder ──► states [N, S, d_model]
    cross:    states [Q·D, S, d_model] ──► cross_key_l, cross_value_l [Q·D, H, S, K]
    decoder:  token_ids [Q, B], past ──► decoder ──► logits [Q·D, B, V] ──► Mixture ──► candidates
    step:     the same with a static KV cache, written in place, for a CUDA graph

A family is a file beside this one with an encoder, a decoder and the names of its cross-attention, and rows
of :mod:`ragengine_export.families`.  Axes: Q questions, D documents, B beams, S source tokens, T target
tokens so far, H heads, K head size, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir
from onnxscript import nn

from ragengine_export.graphs.decoder_step import DecoderInputs
from ragengine_export.graphs.int8_attention import int8_memory
from ragengine_export.graphs.layers import Linear
from ragengine_export.graphs.mixture import Mixture
from ragengine_export.graphs.naming import Named, Namespace
from ragengine_export.graphs.values import FLOAT, Op, cast


@dataclass(frozen=True, kw_only=True)
class GeneratorShape:
    """Sizes of a generator; ``dtype`` is what it computes in.

    ``max_positions`` is None where positions are relative, ``position_offset`` counts the rows of the table
    of positions before the first one.  ``head_size`` is K of both stacks.  ``fused`` asks for operators
    that do more at once, which CUDA computes faster and a CPU more slowly; ``memory`` says what the keys and
    values of documents are kept in.
    """

    vocab_size: int
    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_heads: int
    decoder_heads: int
    head_size: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    activation: str
    max_positions: int | None
    position_offset: int = 0
    has_logits_bias: bool = False
    dtype: ir.DataType = field(default=FLOAT)
    fused: bool = False
    memory: Literal["float", "int8"] = "float"


class CrossProjections(Namespace):
    """states [Q·D, S, d_model] -> key and value [Q·D, H, S, K] of each decoder layer, or :class:`Int8Memory`.

    The decoder's keys and values of the encoded documents, made once instead of once a beam and step.
    ``names`` are those of the linear layers: key and value of the first decoder layer, of the second, ...
    """

    def __init__(self, shape: GeneratorShape, names: Sequence[str], *, bias: bool) -> None:
        super().__init__()
        self.names = names
        self._heads = [0, 0, shape.decoder_heads, shape.head_size]
        self._memory = shape.memory
        for name in names:
            self.add(name, Linear(shape.d_model, shape.decoder_heads * shape.head_size, bias=bias))

    def forward(self, op: Op, states: ir.Value) -> list[ir.Value]:
        by_head = [op.Reshape(self.named(op, name, states), self._heads) for name in self.names]
        if self._memory == "float":
            return [op.Transpose(x, perm=[0, 2, 1, 3]) for x in by_head]
        pairs = zip(by_head[::2], by_head[1::2], strict=True)
        return [kept for key, value in pairs for kept in int8_memory(op, key, value)]


class GeneratorDecoder(Named):
    """One decoding step of every beam, with the mixture over documents at its end.

    token_ids               int64 [Q, B]      the last token of each beam
    own_past                bool [Q, B, P+B]  which tokens each beam has read: of the past, and of this step
    position                int64 [1]         T, the number of tokens each beam has read before
    context_attention_mask  int64 [Q, D, S]
    cross (each layer)      [Q·D, H, S, K]    key and value, from the cross graph
    past (each layer)       [Q·D, H, P, K]    key and value of the P tokens that all beams have read before,
                                              in the order of their steps; P = 0 in the first

    Returns :class:`Mixture`'s outputs by name, and the present [Q·D, H, P+B, K] of each layer.

    With :class:`StaticInputs` the past has room for P tokens, the present is the past written in place,
    ``own_past`` is [Q, B, P] and nothing is P+B long.
    """

    def __init__(self, shape: GeneratorShape, name: str, stack: nn.Module, *, bias_heads: int = 1) -> None:
        """``stack`` makes states [Q, B, D, d_model] and presents of :class:`DecoderInputs`; the bias of its
        self-attention has ``bias_heads`` heads."""
        super().__init__(name, stack)
        self.lm_head = Linear(shape.d_model, shape.vocab_size, bias=False, is_table=True)
        self.final_logits_bias = nn.Parameter([1, shape.vocab_size]) if shape.has_logits_bias else None
        self.mixture = Mixture(shape.vocab_size)
        self.d_model = shape.d_model
        self.bias_heads = bias_heads

    def forward(self, op: Op, step: DecoderInputs) -> tuple[dict[str, ir.Value], list[ir.Value]]:
        states, presents = self.named(op, self.path, step)
        logits = cast(op, self.lm_head(op, states), FLOAT)  # [Q, B, D, V]
        if self.final_logits_bias is not None:
            logits = op.Add(logits, cast(op, self.final_logits_bias, FLOAT))
        candidates = self.mixture(
            op,
            logits,
            step.log_weights,
            step.beam_scores,
            step.num_candidates,
            step.probe_ids,
            step.shapes,
            static=step.static,
        )
        return candidates, presents
