"""T5, T5 v1.1, Flan-T5, mT5 and ByT5.

Parameters are named as in `T5ForConditionalGeneration`.  No layer has a bias, scores are not scaled, and a
bias by relative position is added to those of self-attention, one for all layers of a stack.

In fp16 the feed-forward layer's last product and the residual stream stay in float32: T5's checkpoints reach
numbers there that float16 does not have.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnxscript import nn

from ragengine_export.graphs.decoder_step import DecoderInputs
from ragengine_export.graphs.generator import CrossProjections, GeneratorDecoder, GeneratorShape
from ragengine_export.graphs.layers import Embedding, Linear, RmsNorm, activate, attention
from ragengine_export.graphs.naming import Block, Named
from ragengine_export.graphs.relative_positions import relative_bias
from ragengine_export.graphs.token_tree import TreeStep, distances
from ragengine_export.graphs.values import FLOAT, Op, cast, number


@dataclass(frozen=True, kw_only=True)
class T5Shape(GeneratorShape):
    """Sizes and variants, as in `T5Config`.

    gated            whether the feed-forward layer multiplies two products, one of them activated
    scaled_head      whether the states are multiplied with d_model ** -0.5 before the head
    buckets          rows of the tables of relative positions
    encoder_buckets  the row for each relative position -m, ..., m; farther ones are as these
    decoder_buckets  the row for each distance 0, ..., m before a token
    """

    epsilon: float
    gated: bool
    scaled_head: bool
    buckets: int
    encoder_buckets: tuple[int, ...]
    decoder_buckets: tuple[int, ...]

    @property
    def inner(self) -> int:
        """Width of queries, keys and values: not always d_model."""
        return self.decoder_heads * self.head_size


def t5_encoder(shape: T5Shape) -> nn.Module:
    """input_ids, attention_mask int64 [N, S] -> states [N, S, d_model]."""
    return Named("encoder", _Encoder(shape))


def t5_cross(shape: T5Shape) -> CrossProjections:
    """The decoder's keys and values of documents."""
    layers = (f"decoder.block.{layer}.layer.1.EncDecAttention" for layer in range(shape.decoder_layers))
    return CrossProjections(shape, [f"{layer}.{part}" for layer in layers for part in "kv"], bias=False)


def t5_decoder(shape: T5Shape) -> GeneratorDecoder:
    """A decoding step."""
    return GeneratorDecoder(shape, "decoder", _Decoder(shape), bias_heads=shape.decoder_heads)


class _Stack(nn.Module):
    """Embeddings and blocks, of encoder and decoder.

    A block is a tree of its matrices; sublayer n of it is ``layer.n``, with a norm of its own.
    """

    def __init__(self, shape: T5Shape, blocks: int, attentions: Sequence[str], ffn_dim: int) -> None:
        super().__init__()
        self.embed_tokens = Embedding(shape.vocab_size, shape.d_model)
        self.block = nn.ModuleList([_block(shape, attentions, ffn_dim, first=n == 0) for n in range(blocks)])
        self.final_layer_norm = RmsNorm(shape.d_model, shape.epsilon)
        self._shape = shape
        self._feed_forward = len(attentions)

    def relative(self, op: Op, buckets: ir.Value) -> ir.Value:
        """The bias of every head for rows of the table: [..., H]."""
        return self.block[0](op, "layer.0.SelfAttention.relative_attention_bias", buckets)

    def enter(self, op: Op, block: Block, layer: int, x: ir.Value) -> ir.Value:
        """What a sublayer reads of the residual stream ``x``, which is float32."""
        return cast(op, block(op, f"layer.{layer}.layer_norm", x), self._shape.dtype)

    def leave(self, op: Op, block: Block, name: str, x: ir.Value, y: ir.Value) -> ir.Value:
        """The residual stream after a sublayer, ``name`` its last product and ``y`` what that reads."""
        return op.Add(x, cast(op, block(op, name, y), FLOAT))

    def feed_forward(self, op: Op, block: Block, x: ir.Value) -> ir.Value:
        layer, name = self._feed_forward, f"layer.{self._feed_forward}.DenseReluDense"
        y = self.enter(op, block, layer, x)
        if self._shape.gated:
            gate = activate(op, self._shape.activation, cast(op, block(op, f"{name}.wi_0", y), FLOAT))
            inner = op.Mul(gate, cast(op, block(op, f"{name}.wi_1", y), FLOAT))
        else:
            inner = activate(op, self._shape.activation, cast(op, block(op, f"{name}.wi", y), FLOAT))
        return self.leave(op, block, f"{name}.wo", x, inner)


class _Encoder(_Stack):
    def __init__(self, shape: T5Shape) -> None:
        super().__init__(shape, shape.encoder_layers, ["SelfAttention"], shape.encoder_ffn_dim)

    def forward(self, op: Op, input_ids: ir.Value, attention_mask: ir.Value) -> ir.Value:
        mask = op.Cast(attention_mask, to=ir.DataType.INT32)
        x = cast(op, self.embed_tokens(op, input_ids), FLOAT)
        bias = self._bias(op, input_ids)
        for block in self.block:
            y = self.enter(op, block, 0, x)
            q, k, v = (block(op, f"layer.0.SelfAttention.{part}", y) for part in "qkv")
            y = attention(
                op, q, k, v, num_heads=self._shape.encoder_heads, mask=mask, bias=bias, scaled=False
            )
            x = self.leave(op, block, "layer.0.SelfAttention.o", x, y)
            x = self.feed_forward(op, block, x)
        return cast(op, self.final_layer_norm(op, x), self._shape.dtype)

    def _bias(self, op: Op, input_ids: ir.Value) -> ir.Value:
        """By the position of key less that of query: [1, H, S, S]."""
        return relative_bias(op, input_ids, self._shape.encoder_buckets, lambda rows: self.relative(op, rows))


class _Decoder(_Stack):
    def __init__(self, shape: T5Shape) -> None:
        attentions = ["SelfAttention", "EncDecAttention"]
        super().__init__(shape, shape.decoder_layers, attentions, shape.decoder_ffn_dim)

    def forward(self, op: Op, step: DecoderInputs) -> tuple[ir.Value, list[ir.Value]]:
        shape = self._shape
        table = shape.decoder_buckets
        near = op.Min(distances(op, step.own_past), _integers(op, len(table) - 1))
        tree = TreeStep(
            op, step,
            num_heads=shape.decoder_heads,
            head_size=shape.head_size,
            dtype=shape.dtype,
            scaled=False,
            relative=self.relative(op, op.Gather(_integers(op, table), near)),
        )  # fmt: skip
        x = cast(op, tree.over_documents(op, self.embed_tokens(op, step.token_ids)), FLOAT)
        presents = []
        for block, cross, past in zip(self.block, step.cross, step.past, strict=True):
            y = self.enter(op, block, 0, x)
            q, k, v = (block(op, f"layer.0.SelfAttention.{part}", y) for part in "qkv")
            y, *present = tree.self_attention(op, q, k, v, past)
            x = self.leave(op, block, "layer.0.SelfAttention.o", x, y)
            q = block(op, "layer.1.EncDecAttention.q", self.enter(op, block, 1, x))
            x = self.leave(op, block, "layer.1.EncDecAttention.o", x, tree.cross_attention(op, q, cross))
            x = self.feed_forward(op, block, x)
            presents += present
        states = self.final_layer_norm(op, x)
        if shape.scaled_head:
            states = op.Mul(states, number(op, shape.d_model**-0.5, FLOAT))
        return tree.by_question(op, cast(op, states, shape.dtype)), presents


def _block(shape: T5Shape, attentions: Sequence[str], ffn_dim: int, *, first: bool) -> Block:
    """The sublayers of one block; the first has the table of relative positions for all."""
    block = Block()
    for layer, attention_name in enumerate(attentions):
        name = f"layer.{layer}.{attention_name}"
        for part in "qkv" if attention_name == "SelfAttention" else "q":  # cross graph: the rest
            block.add(f"{name}.{part}", Linear(shape.d_model, shape.inner, bias=False))
        block.add(f"{name}.o", Linear(shape.inner, shape.d_model, bias=False))
        block.add(f"layer.{layer}.layer_norm", RmsNorm(shape.d_model, shape.epsilon))
    if first:
        table = Embedding(shape.buckets, shape.decoder_heads, quantised=False)
        block.add("layer.0.SelfAttention.relative_attention_bias", table)
    layer = len(attentions)
    for name in ("wi_0", "wi_1") if shape.gated else ("wi",):
        block.add(f"layer.{layer}.DenseReluDense.{name}", Linear(shape.d_model, ffn_dim, bias=False))
    wo = Linear(ffn_dim, shape.d_model, bias=False, half=False)
    block.add(f"layer.{layer}.DenseReluDense.wo", wo)
    block.add(f"layer.{layer}.layer_norm", RmsNorm(shape.d_model, shape.epsilon))
    return block


def _integers(op: Op, values: int | Sequence[int]) -> ir.Value:
    return op.Constant(value=ir.tensor(np.array(values, np.int32)))
