"""The generator (paper, section 2.3): BART as an encoder graph and a decoder-step graph.

Parameters are named as in `BartForConditionalGeneration`.  Axes: Q questions, D documents, B beams,
S source tokens, T target tokens so far, H heads, K head size, V vocabulary.

    encoder:  input_ids [N, S] ──► BART encoder ──► states [N, S, d_model]
    cross:    states [Q·D, S, d_model] ──► cross_key_l, cross_value_l [Q·D, H, S, K]
    decoder:  token_ids [Q, B], past ──► BART decoder ──► logits [Q·D, B, V] ──► Mixture ──► candidates
    step:     the same with a static KV cache, written in place, for a CUDA graph

All beams of a question read the same documents, so the beams are the query axis of cross-attention
and nothing of the encoder's output is ever copied B times.  They are the query axis of self-attention too:
the past holds every token that any beam of any step has read, and a bias tells each beam which are its own
(`token tree`, docs/concepts/token-tree.md).  So no beam's cache is ever reordered or copied.
"""

from dataclasses import dataclass
from math import sqrt

import onnx_ir as ir
from onnxscript import nn

from ragengine_export.graphs.decoder_step import DecoderInputs
from ragengine_export.graphs.layers import (
    FLOAT,
    LARGEST_HALF,
    MASKED,
    Embedding,
    LayerNorm,
    Linear,
    Op,
    activate,
    attention,
    attention_in_place,
    attention_with_past,
    number,
    saturated,
)
from ragengine_export.graphs.mixture import Mixture
from ragengine_export.graphs.weight_formats import cast

POSITION_OFFSET = 2  # BartLearnedPositionalEmbedding: positions start at row 2
EPSILON = 1e-5  # torch.nn.LayerNorm's default, which BART uses


@dataclass(frozen=True)
class BartShape:
    """Sizes and variants of a BART generator, as in `BartConfig`; ``dtype`` is what it computes in."""

    vocab_size: int
    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_heads: int
    decoder_heads: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    max_positions: int
    activation: str
    scale_embedding: bool
    has_logits_bias: bool
    dtype: ir.DataType = FLOAT

    @property
    def head_size(self) -> int:
        return self.d_model // self.decoder_heads

    @property
    def embed_scale(self) -> float:
        return sqrt(self.d_model) if self.scale_embedding else 1.0


class BartEncoder(nn.Module):
    """input_ids, attention_mask int64 [N, S] -> states float32 [N, S, d_model]."""

    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.model = _EncoderModel(shape)

    def forward(self, op: Op, input_ids: ir.Value, attention_mask: ir.Value) -> ir.Value:
        return self.model(op, input_ids, op.Cast(attention_mask, to=ir.DataType.INT32))


class _EncoderModel(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.encoder = _Encoder(shape)

    def forward(self, op: Op, input_ids: ir.Value, mask: ir.Value) -> ir.Value:
        return self.encoder(op, input_ids, mask)


class _Encoder(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.embed_tokens = Embedding(shape.vocab_size, shape.d_model)
        self.embed_positions = Embedding(
            shape.max_positions + POSITION_OFFSET, shape.d_model, quantised=False
        )
        self.layernorm_embedding = LayerNorm(shape.d_model, EPSILON)
        self.layers = nn.ModuleList([_EncoderLayer(shape) for _ in range(shape.encoder_layers)])
        self._shape = shape

    def forward(self, op: Op, input_ids: ir.Value, mask: ir.Value) -> ir.Value:
        zero = op.Constant(value_ints=[0])
        length = op.Squeeze(op.Shape(input_ids, start=1, end=2), zero)
        first = op.Constant(value_int=POSITION_OFFSET)
        places = op.Range(first, op.Add(length, first), op.Constant(value_int=1))
        words = _scaled(op, self.embed_tokens(op, input_ids), self._shape)
        positions = op.Expand(op.Unsqueeze(self.embed_positions(op, places), zero), op.Shape(words))
        x = self.layernorm_embedding(op, words, positions)
        for layer in self.layers:
            x = layer(op, x, mask)
        return x


class _EncoderLayer(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.self_attn = _EncoderSelfAttention(shape)
        self.self_attn_layer_norm = LayerNorm(shape.d_model, EPSILON)
        self.fc1 = Linear(shape.d_model, shape.encoder_ffn_dim)
        self.fc2 = Linear(shape.encoder_ffn_dim, shape.d_model)
        self.final_layer_norm = LayerNorm(shape.d_model, EPSILON)
        self._shape = shape

    def forward(self, op: Op, x: ir.Value, mask: ir.Value) -> ir.Value:
        x = self.self_attn_layer_norm(op, self.self_attn(op, x, mask), x)
        return self.final_layer_norm(op, _feed_forward(op, self, x, self._shape), x)


class _EncoderSelfAttention(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.q_proj = Linear(shape.d_model, shape.d_model)
        self.k_proj = Linear(shape.d_model, shape.d_model)
        self.v_proj = Linear(shape.d_model, shape.d_model)
        self.out_proj = Linear(shape.d_model, shape.d_model)
        self._num_heads = shape.encoder_heads

    def forward(self, op: Op, x: ir.Value, mask: ir.Value) -> ir.Value:
        q, k, v = self.q_proj(op, x), self.k_proj(op, x), self.v_proj(op, x)
        return self.out_proj(op, attention(op, q, k, v, num_heads=self._num_heads, mask=mask))


class BartCrossProjections(nn.Module):
    """states float32 [Q·D, S, d_model] -> for each decoder layer key and value [Q·D, H, S, K].

    The decoder's keys and values of the encoded documents, made once instead of once a beam and step.
    """

    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.model = _CrossModel(shape)

    def forward(self, op: Op, states: ir.Value) -> list[ir.Value]:
        return self.model(op, states)


class _CrossModel(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.decoder = _CrossProjections(shape)

    def forward(self, op: Op, states: ir.Value) -> list[ir.Value]:
        return self.decoder(op, states)


class _CrossProjections(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_CrossProjectionLayer(shape) for _ in range(shape.decoder_layers)])

    def forward(self, op: Op, states: ir.Value) -> list[ir.Value]:
        return [value for layer in self.layers for value in layer(op, states)]


class _CrossProjectionLayer(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.encoder_attn = _CrossKeyValue(shape)

    def forward(self, op: Op, states: ir.Value) -> tuple[ir.Value, ir.Value]:
        return self.encoder_attn(op, states)


class _CrossKeyValue(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.k_proj = Linear(shape.d_model, shape.d_model)
        self.v_proj = Linear(shape.d_model, shape.d_model)
        self._heads = [0, 0, shape.decoder_heads, shape.head_size]

    def forward(self, op: Op, states: ir.Value) -> tuple[ir.Value, ir.Value]:
        def split_heads(x: ir.Value) -> ir.Value:  # [N, S, H·K] -> [N, H, S, K]
            return op.Transpose(op.Reshape(x, self._heads), perm=[0, 2, 1, 3])

        return split_heads(self.k_proj(op, states)), split_heads(self.v_proj(op, states))


class BartDecoder(nn.Module):
    """One decoding step of every beam, with the mixture over documents at its end.

    token_ids               int64 [Q, B]      the last token of each beam
    own_past                bool [Q, B, P+B]  which tokens each beam has read: of the past, and of this step
    position                int64 [1]         T, the number of tokens each beam has read before
    context_attention_mask  int64 [Q, D, S]
    cross (each layer)      float32 [Q·D, H, S, K] key and value, from the cross graph
    past (each layer)       float32 [Q·D, H, P, K] key and value of the P tokens that all beams have read
                            before, in the order of their steps; P = 0 in the first

    Returns :class:`Mixture`'s outputs by name, and the present [Q·D, H, P+B, K] of each layer.

    With :class:`StaticInputs` the past has room for P tokens, the present is the past written in place,
    ``own_past`` is [Q, B, P] and nothing is P+B long.
    """

    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.model = _DecoderModel(shape)
        self.lm_head = Linear(shape.d_model, shape.vocab_size, bias=False, is_table=True)
        self.final_logits_bias = nn.Parameter([1, shape.vocab_size]) if shape.has_logits_bias else None
        self.mixture = Mixture(shape.vocab_size)
        self.d_model = shape.d_model
        self._dtype = shape.dtype

    def forward(self, op: Op, step: DecoderInputs) -> tuple[dict[str, ir.Value], list[ir.Value]]:
        states, presents = self.model(op, step)
        logits = cast(op, _known(self.lm_head(op, states), self._dtype), FLOAT)  # [Q, B, D, V]
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


class _DecoderModel(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.decoder = _Decoder(shape)

    def forward(self, op: Op, step: DecoderInputs) -> tuple[ir.Value, list[ir.Value]]:
        return self.decoder(op, step)


class _Decoder(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.embed_tokens = Embedding(shape.vocab_size, shape.d_model)
        self.embed_positions = Embedding(
            shape.max_positions + POSITION_OFFSET, shape.d_model, quantised=False
        )
        self.layernorm_embedding = LayerNorm(shape.d_model, EPSILON)
        self.layers = nn.ModuleList([_DecoderLayer(shape) for _ in range(shape.decoder_layers)])
        self._shape = shape

    def forward(self, op: Op, step: DecoderInputs) -> tuple[ir.Value, list[ir.Value]]:
        views = _Views(op, step, self._shape)
        words = _scaled(op, self.embed_tokens(op, step.token_ids), self._shape)  # [Q, B, d_model]
        place = op.Add(step.position, op.Constant(value_ints=[POSITION_OFFSET]))
        positions = self.embed_positions(op, place)  # [1, d_model], the same for all beams
        x = views.over_documents(op, self.layernorm_embedding(op, words, positions))
        presents = []
        for layer, cross, past in zip(self.layers, step.cross, step.past, strict=True):
            x, *present = layer(op, x, views, cross, past)
            presents += present
        return views.by_question(op, x), presents


class _Views:
    """The views of one step that its layers share: every document of every question is a row, [Q·D, ...]."""

    def __init__(self, op: Op, step: DecoderInputs, shape: BartShape) -> None:
        self._shapes = step.shapes
        self._one = op.Constant(value_ints=[1])
        self.context_mask, self.context_bias, self.places = None, None, None
        if step.static is not None:
            self.context_bias, self.places = step.static.context_bias, step.static.places
        else:
            mask = op.Cast(step.context_attention_mask, to=ir.DataType.INT32)
            self.context_mask = op.Reshape(mask, self._shapes.context_mask)  # [Q·D, S]
        # added to the scores of self-attention, [Q·D, 1, B, P]
        hidden = MASKED if shape.dtype == FLOAT else -LARGEST_HALF
        bias = op.Where(step.own_past, number(op, 0.0, shape.dtype), number(op, hidden, shape.dtype))
        self.past_bias = op.Reshape(self._repeated(op, bias), self._shapes.past_bias)

    def over_documents(self, op: Op, x: ir.Value) -> ir.Value:
        """[Q, B, d_model] -> [Q·D, B, d_model]."""
        return op.Reshape(self._repeated(op, x), self._shapes.by_row)

    def by_question(self, op: Op, x: ir.Value) -> ir.Value:
        """[Q·D, B, d_model] -> [Q, B, D, d_model], so that the mixture's sum over D is a matrix product."""
        return op.Transpose(op.Reshape(x, self._shapes.by_question), perm=[0, 2, 1, 3])

    def _repeated(self, op: Op, x: ir.Value) -> ir.Value:
        """[Q, ...] -> [Q, D, ...]."""
        return op.Expand(op.Unsqueeze(x, self._one), self._shapes.each_document)


class _DecoderLayer(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.self_attn = _DecoderSelfAttention(shape)
        self.self_attn_layer_norm = LayerNorm(shape.d_model, EPSILON)
        self.encoder_attn = _CrossAttention(shape)
        self.encoder_attn_layer_norm = LayerNorm(shape.d_model, EPSILON)
        self.fc1 = Linear(shape.d_model, shape.decoder_ffn_dim)
        self.fc2 = Linear(shape.decoder_ffn_dim, shape.d_model)
        self.final_layer_norm = LayerNorm(shape.d_model, EPSILON)
        self._shape = shape

    def forward(
        self,
        op: Op,
        x: ir.Value,
        views: _Views,
        cross: tuple[ir.Value, ir.Value],
        past: tuple[ir.Value, ir.Value],
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        y, present_key, present_value = self.self_attn(op, x, past, views)
        x = self.self_attn_layer_norm(op, y, x)
        x = self.encoder_attn_layer_norm(op, self.encoder_attn(op, x, cross, views), x)
        x = self.final_layer_norm(op, _feed_forward(op, self, x, self._shape), x)
        return x, present_key, present_value


class _DecoderSelfAttention(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.q_proj = Linear(shape.d_model, shape.d_model)
        self.k_proj = Linear(shape.d_model, shape.d_model)
        self.v_proj = Linear(shape.d_model, shape.d_model)
        self.out_proj = Linear(shape.d_model, shape.d_model)
        self._num_heads, self._head_size = shape.decoder_heads, shape.head_size

    def forward(
        self, op: Op, x: ir.Value, past: tuple[ir.Value, ir.Value], views: _Views
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        q, k, v = self.q_proj(op, x), self.k_proj(op, x), self.v_proj(op, x)
        bias, heads = views.past_bias, self._num_heads
        if views.places is None:
            y, *present = attention_with_past(op, q, k, v, past, bias, num_heads=heads)
        else:
            y, *present = attention_in_place(
                op, q, k, v, past, views.places, bias, num_heads=heads, head_size=self._head_size
            )
        return self.out_proj(op, y), *present


class _CrossAttention(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.q_proj = Linear(shape.d_model, shape.d_model)
        self.out_proj = Linear(shape.d_model, shape.d_model)
        self._num_heads = shape.decoder_heads

    def forward(self, op: Op, x: ir.Value, cross: tuple[ir.Value, ir.Value], views: _Views) -> ir.Value:
        mask, bias = views.context_mask, views.context_bias
        y = attention(op, self.q_proj(op, x), *cross, num_heads=self._num_heads, mask=mask, bias=bias)
        return self.out_proj(op, y)


def _scaled(op: Op, x: ir.Value, shape: BartShape) -> ir.Value:
    return x if shape.embed_scale == 1.0 else op.Mul(x, number(op, shape.embed_scale, shape.dtype))


def _feed_forward(op: Op, layer: "_EncoderLayer | _DecoderLayer", x: ir.Value, shape: BartShape) -> ir.Value:
    inner = saturated(op, activate(op, shape.activation, layer.fc1(op, x)), shape.dtype)
    return saturated(op, layer.fc2(op, inner), shape.dtype)


def _known(value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """``value`` with its type said: contrib operators come without type inference."""
    value.dtype = dtype
    return value
