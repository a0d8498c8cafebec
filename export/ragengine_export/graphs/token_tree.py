"""A decoding step of all beams over all documents: the views and the attention that every family shares.

All beams of a question read the same documents, so the beams are the query axis of cross-attention
and nothing of the encoder's output is ever copied B times.  They are the query axis of self-attention too:
the past holds every token that any beam of any step has read, and a bias tells each beam which are its own
(`token tree`, docs/concepts/token-tree.md).  So no beam's cache is ever reordered or copied.
"""

import onnx_ir as ir

from ragengine.bundle.signatures import HIDDEN_HALF
from ragengine_export.graphs.decoder_step import DecoderInputs
from ragengine_export.graphs.int8_attention import Int8Memory, hidden_bias, int8_attention
from ragengine_export.graphs.layers import MASKED, attention, attention_in_place, attention_with_past
from ragengine_export.graphs.values import FLOAT, Op, number

Pair = tuple[ir.Value, ir.Value]
"""Key and value."""
Cross = Pair | Int8Memory
"""A layer's keys and values of the documents."""


class TreeStep:
    """What the layers of one step share: every document of every question is a row, [Q·D, ...].

    ``scaled`` says whether scores are divided by sqrt(K); ``relative``, [Q, B, P, H], is added to those of
    self-attention, where positions are relative.
    """

    def __init__(
        self,
        op: Op,
        step: DecoderInputs,
        *,
        num_heads: int,
        head_size: int,
        dtype: ir.DataType,
        scaled: bool = True,
        relative: ir.Value | None = None,
    ) -> None:
        self._shapes = step.shapes
        self._one = op.Constant(value_ints=[1])
        self._heads, self._head_size, self._scaled = num_heads, head_size, scaled
        self._context_mask, self._context_bias, self._places = None, None, None
        if step.static is not None:
            self._context_bias, self._places = step.static.context_bias, step.static.places
        else:
            mask = op.Cast(step.context_attention_mask, to=ir.DataType.INT32)
            self._context_mask = op.Reshape(mask, self._shapes.context_mask)  # [Q·D, S]
        self._past_bias = self._bias_of(op, step.own_past, relative, dtype)

    def over_documents(self, op: Op, x: ir.Value) -> ir.Value:
        """[Q, B, d_model] -> [Q·D, B, d_model]."""
        return op.Reshape(self._repeated(op, op.Unsqueeze(x, self._one)), self._shapes.by_row)

    def by_question(self, op: Op, x: ir.Value) -> ir.Value:
        """[Q·D, B, d_model] -> [Q, B, D, d_model], so that the mixture's sum over D is a matrix product."""
        return op.Transpose(op.Reshape(x, self._shapes.by_question), perm=[0, 2, 1, 3])

    def self_attention(
        self, op: Op, query: ir.Value, key: ir.Value, value: ir.Value, past: Pair
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Each beam over its own past: [Q·D, B, H·K], and the present key and value."""
        bias, heads, scaled = self._past_bias, self._heads, self._scaled
        if self._places is None:
            return attention_with_past(op, query, key, value, past, bias, num_heads=heads, scaled=scaled)
        return attention_in_place(
            op, query, key, value, past, self._places, bias,
            num_heads=heads, head_size=self._head_size, scaled=scaled,
        )  # fmt: skip

    def cross_attention(self, op: Op, query: ir.Value, cross: Cross) -> ir.Value:
        """Each beam over the documents: [Q·D, B, H·K]."""
        if isinstance(cross, Int8Memory):
            if self._context_bias is None:
                assert self._context_mask is not None
                self._context_bias = hidden_bias(op, self._context_mask)
            return int8_attention(
                op, query, cross, self._context_bias,
                num_heads=self._heads, head_size=self._head_size, scaled=self._scaled,
            )  # fmt: skip
        mask, bias = self._context_mask, self._context_bias
        return attention(op, query, *cross, num_heads=self._heads, mask=mask, bias=bias, scaled=self._scaled)

    def _bias_of(self, op: Op, own_past: ir.Value, relative: ir.Value | None, dtype: ir.DataType) -> ir.Value:
        """What is added to the scores of self-attention, [Q·D, 1 or H, B, P]; ``own_past`` is [Q, B, P]."""
        hidden = number(op, MASKED if dtype == FLOAT else HIDDEN_HALF, dtype)
        if relative is None:
            bias = op.Unsqueeze(op.Where(own_past, number(op, 0.0, dtype), hidden), self._one)
        else:
            own = op.Unsqueeze(own_past, op.Constant(value_ints=[3]))
            by_head = op.Transpose(op.Where(own, relative, hidden), perm=[0, 3, 1, 2])  # [Q, H, B, P]
            bias = op.Reshape(by_head, op.Constant(value_ints=[0, 1, -1, 1]))
        return op.Reshape(self._repeated(op, bias), self._shapes.past_bias)

    def _repeated(self, op: Op, x: ir.Value) -> ir.Value:
        """[Q, 1, ...] -> [Q, D, ...]."""
        return op.Expand(x, self._shapes.each_document)


def distances(op: Op, own_past: ir.Value) -> ir.Value:
    """How many positions before its beam each token of the past lies: int32 [Q, B, P].

    A beam's tokens lie in the past in the order of their positions, with tokens of other beams between them:
    the distance of one is the number of the beam's own tokens after it, wherever they lie.  Of tokens that
    are not the beam's own the number means nothing.
    """
    last = op.Constant(value_int=-1)
    return op.CumSum(op.Cast(own_past, to=ir.DataType.INT32), last, exclusive=1, reverse=1)
