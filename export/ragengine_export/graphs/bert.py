"""The DPR encoders (paper, section 2.2): BERT, then the vector of the first token.

Parameters are named as in `BertModel`, plus DPR's ``encode_proj`` and BERT's ``pooler``.
"""

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir
from onnxscript import nn

from ragengine_export.graphs.layers import (
    FLOAT,
    Embedding,
    LayerNorm,
    Linear,
    Op,
    activate,
    attention,
    saturated,
)


@dataclass(frozen=True)
class BertShape:
    """Sizes of a BERT encoder.  ``head`` is what makes the vector from the first token's state:
    ``cls`` nothing, ``projection`` DPR's linear layer, ``pooler`` BERT's linear layer and tanh.
    ``dtype`` is what it computes in; the vectors are float32."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    max_positions: int
    type_vocab_size: int
    activation: str
    epsilon: float
    head: Literal["cls", "projection", "pooler"]
    dimension: int
    dtype: ir.DataType = FLOAT


class BertEncoder(nn.Module):
    """input_ids, attention_mask int64 [N, S] -> vectors float32 [N, E].

    Token types are all zero, as in Hugging Face's RAG: neither questions nor passages are encoded
    with a second segment there.
    """

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.embeddings = _Embeddings(shape)
        self.encoder = _Layers(shape)
        self.encode_proj = Linear(shape.hidden_size, shape.dimension) if shape.head == "projection" else None
        self.pooler = _Pooler(shape) if shape.head == "pooler" else None
        self._dtype = shape.dtype

    def forward(self, op: Op, input_ids: ir.Value, attention_mask: ir.Value) -> ir.Value:
        mask = op.Cast(attention_mask, to=ir.DataType.INT32)
        states = self.encoder(op, self.embeddings(op, input_ids), mask)
        first = op.Gather(states, op.Constant(value_int=0), axis=1)  # [N, hidden]
        for head in (self.encode_proj, self.pooler):
            first = first if head is None else head(op, first)
        return first if self._dtype == FLOAT else op.Cast(first, to=FLOAT)


class _Embeddings(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.word_embeddings = Embedding(shape.vocab_size, shape.hidden_size)
        self.position_embeddings = Embedding(shape.max_positions, shape.hidden_size, quantised=False)
        self.token_type_embeddings = Embedding(shape.type_vocab_size, shape.hidden_size, quantised=False)
        self.LayerNorm = LayerNorm(shape.hidden_size, shape.epsilon)

    def forward(self, op: Op, input_ids: ir.Value) -> ir.Value:
        zero = op.Constant(value_ints=[0])
        length = op.Shape(input_ids, start=1, end=2)
        positions = op.Range(op.Constant(value_int=0), op.Squeeze(length, zero), op.Constant(value_int=1))
        words = self.word_embeddings(op, input_ids)
        places = op.Add(self.position_embeddings(op, positions), self.token_type_embeddings(op, zero))
        return self.LayerNorm(op, words, op.Expand(op.Unsqueeze(places, zero), op.Shape(words)))


class _Layers(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.layer = nn.ModuleList([_Layer(shape) for _ in range(shape.num_layers)])

    def forward(self, op: Op, x: ir.Value, mask: ir.Value) -> ir.Value:
        for layer in self.layer:
            x = layer(op, x, mask)
        return x


class _Layer(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.attention = _Attention(shape)
        self.intermediate = _Dense(shape.hidden_size, shape.intermediate_size)
        self.output = _Output(shape.intermediate_size, shape)
        self._shape = shape

    def forward(self, op: Op, x: ir.Value, mask: ir.Value) -> ir.Value:
        x = self.attention(op, x, mask)
        inner = activate(op, self._shape.activation, self.intermediate(op, x))
        return self.output(op, saturated(op, inner, self._shape.dtype), x)


class _Attention(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.self = _SelfAttention(shape)
        self.output = _Output(shape.hidden_size, shape)

    def forward(self, op: Op, x: ir.Value, mask: ir.Value) -> ir.Value:
        return self.output(op, self.self(op, x, mask), x)


class _SelfAttention(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.query = Linear(shape.hidden_size, shape.hidden_size)
        self.key = Linear(shape.hidden_size, shape.hidden_size)
        self.value = Linear(shape.hidden_size, shape.hidden_size)
        self._num_heads = shape.num_heads

    def forward(self, op: Op, x: ir.Value, mask: ir.Value) -> ir.Value:
        q, k, v = self.query(op, x), self.key(op, x), self.value(op, x)
        return attention(op, q, k, v, num_heads=self._num_heads, mask=mask)


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


class _Pooler(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.dense = Linear(shape.hidden_size, shape.dimension)

    def forward(self, op: Op, first: ir.Value) -> ir.Value:
        return op.Tanh(self.dense(op, first))
