"""BERT, and what computes as it does: RoBERTa, XLM-R, DistilBERT, ELECTRA, MPNet, and DPR's encoders.

Each layer normalises after its residual sum.  Parameters are named as in `BertModel`; a variant's own
(``embeddings_project``, ``encoder.relative_attention_bias``) as in its class.
"""

from dataclasses import dataclass

import onnx_ir as ir
from onnxscript import nn

from ragengine_export.graphs.layers import Embedding, LayerNorm, Linear, activate, attention, saturated
from ragengine_export.graphs.relative_positions import relative_bias
from ragengine_export.graphs.text_encoder import EncoderShape, TextEncoder
from ragengine_export.graphs.values import Op


@dataclass(frozen=True, kw_only=True)
class BertShape(EncoderShape):
    """Sizes of a BERT and its variants.

    position_rows     rows of the table of positions
    padding_id        the token that takes no position, as in RoBERTa; None where each takes one
    type_vocab_size   token types; 0 where the model has none
    embedding_size    the width of the embeddings, where a layer projects them (ELECTRA); else None
    relative_rows     rows of the table of relative positions (MPNet)
    relative_buckets  its row for each relative position -m, ..., m; farther ones are as these
    """

    position_rows: int
    padding_id: int | None = None
    type_vocab_size: int = 0
    embedding_size: int | None = None
    relative_rows: int = 0
    relative_buckets: tuple[int, ...] = ()


class BertEncoder(TextEncoder):
    """The states of a post-norm encoder with a table of positions."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__(shape)
        width = shape.embedding_size or shape.hidden_size
        self.embeddings = _Embeddings(shape, width)
        self.embeddings_project = (
            None if shape.embedding_size is None else Linear(shape.embedding_size, shape.hidden_size)
        )
        self.encoder = _Layers(shape)

    def states(self, op: Op, input_ids: ir.Value, attention_mask: ir.Value) -> ir.Value:
        mask = op.Cast(attention_mask, to=ir.DataType.INT32)
        x = self.embeddings(op, input_ids)
        if self.embeddings_project is not None:
            x = self.embeddings_project(op, x)
        return self.encoder(op, x, mask, input_ids)


class _Embeddings(nn.Module):
    def __init__(self, shape: BertShape, width: int) -> None:
        super().__init__()
        self.word_embeddings = Embedding(shape.vocab_size, width)
        self.position_embeddings = Embedding(shape.position_rows, width, quantised=False)
        self.token_type_embeddings = (
            Embedding(shape.type_vocab_size, width, quantised=False) if shape.type_vocab_size else None
        )
        self.LayerNorm = LayerNorm(width, shape.epsilon)
        self._padding_id = shape.padding_id

    def forward(self, op: Op, input_ids: ir.Value) -> ir.Value:
        words = self.word_embeddings(op, input_ids)
        places = self.position_embeddings(op, self._positions(op, input_ids))  # [S, width] or [N, S, width]
        if self.token_type_embeddings is not None:
            places = op.Add(places, self.token_type_embeddings(op, op.Constant(value_ints=[0])))
        if self._padding_id is None:
            places = op.Expand(op.Unsqueeze(places, op.Constant(value_ints=[0])), op.Shape(words))
        return self.LayerNorm(op, words, places)

    def _positions(self, op: Op, input_ids: ir.Value) -> ir.Value:
        """The row of each token in the table of positions: [S], or [N, S] where padding takes none.

        `create_position_ids_from_input_ids` of transformers: a text that spells the padding token out counts
        as if it were padding.
        """
        if self._padding_id is None:
            length = op.Squeeze(op.Shape(input_ids, start=1, end=2), op.Constant(value_ints=[0]))
            return op.Range(op.Constant(value_int=0), length, op.Constant(value_int=1))
        padding = op.Constant(value_int=self._padding_id)
        real = op.Cast(op.Not(op.Equal(input_ids, padding)), to=ir.DataType.INT64)
        return op.Add(op.Mul(op.CumSum(real, op.Constant(value_int=1)), real), padding)


class _Layers(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.layer = nn.ModuleList([_Layer(shape) for _ in range(shape.num_layers)])
        self.relative_attention_bias = (
            Embedding(shape.relative_rows, shape.num_heads, quantised=False) if shape.relative_rows else None
        )
        self._buckets = shape.relative_buckets

    def forward(self, op: Op, x: ir.Value, mask: ir.Value, input_ids: ir.Value) -> ir.Value:
        bias, table = None, self.relative_attention_bias
        if table is not None:
            bias = relative_bias(op, input_ids, self._buckets, lambda rows: table(op, rows))
        for layer in self.layer:
            x = layer(op, x, mask, bias)
        return x


class _Layer(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.attention = _Attention(shape)
        self.intermediate = _Dense(shape.hidden_size, shape.intermediate_size)
        self.output = _Output(shape.intermediate_size, shape)
        self._shape = shape

    def forward(self, op: Op, x: ir.Value, mask: ir.Value, bias: ir.Value | None) -> ir.Value:
        x = self.attention(op, x, mask, bias)
        inner = activate(op, self._shape.activation, self.intermediate(op, x))
        return self.output(op, saturated(op, inner, self._shape.dtype), x)


class _Attention(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.self = _SelfAttention(shape)
        self.output = _Output(shape.hidden_size, shape)

    def forward(self, op: Op, x: ir.Value, mask: ir.Value, bias: ir.Value | None) -> ir.Value:
        return self.output(op, self.self(op, x, mask, bias), x)


class _SelfAttention(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.query = Linear(shape.hidden_size, shape.hidden_size)
        self.key = Linear(shape.hidden_size, shape.hidden_size)
        self.value = Linear(shape.hidden_size, shape.hidden_size)
        self._num_heads = shape.num_heads

    def forward(self, op: Op, x: ir.Value, mask: ir.Value, bias: ir.Value | None) -> ir.Value:
        q, k, v = self.query(op, x), self.key(op, x), self.value(op, x)
        return attention(op, q, k, v, num_heads=self._num_heads, mask=mask, bias=bias)


class _Dense(nn.Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.dense = Linear(in_features, out_features)

    def forward(self, op: Op, x: ir.Value) -> ir.Value:
        return self.dense(op, x)


class _Output(nn.Module):
    def __init__(self, in_features: int, shape: BertShape) -> None:
        super().__init__()
        self.dense = Linear(in_features, shape.hidden_size)
        self.LayerNorm = LayerNorm(shape.hidden_size, shape.epsilon)
        self._dtype = shape.dtype

    def forward(self, op: Op, x: ir.Value, residual: ir.Value) -> ir.Value:
        return self.LayerNorm(op, saturated(op, self.dense(op, x), self._dtype), residual)
