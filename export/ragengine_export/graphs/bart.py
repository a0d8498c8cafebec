"""The generator (paper, section 2.3): BART as an encoder graph and a decoder-step graph.

Parameters are named as in `BartForConditionalGeneration`.  Axes: Q questions, D documents, B beams,
S source tokens, T target tokens so far, H heads, K head size, V vocabulary.

    encoder:  input_ids [Q·D, S] ──► BART encoder ──► cross_key_l, cross_value_l [Q·D, H, S, K]
    decoder:  token_ids [Q, B], past ──► BART decoder ──► logits [Q·D, B, V] ──► Mixture ──► candidates

All beams of a question read the same documents, so the beams are the query axis of cross-attention
and nothing of the encoder's output is ever copied B times.
"""

from dataclasses import dataclass
from math import sqrt

import onnx_ir as ir
from onnxscript import nn

from ragengine_export.graphs.layers import (
    Embedding,
    Linear,
    Op,
    ResidualNorm,
    activate,
    attention,
    attention_with_past,
    float32,
)
from ragengine_export.graphs.mixture import Mixture

POSITION_OFFSET = 2  # BartLearnedPositionalEmbedding: positions start at row 2
EPSILON = 1e-5  # torch.nn.LayerNorm's default, which BART uses


@dataclass(frozen=True)
class BartShape:
    """Sizes and variants of a BART generator, as in `BartConfig`."""

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

    @property
    def embed_scale(self) -> float:
        return sqrt(self.d_model) if self.scale_embedding else 1.0


class BartEncoder(nn.Module):
    """input_ids, attention_mask int64 [N, S] -> for each decoder layer key and value [N, H, S, K]."""

    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.model = _EncoderModel(shape)

    def forward(self, op: Op, input_ids: ir.Value, attention_mask: ir.Value) -> list[ir.Value]:
        return self.model(op, input_ids, op.Cast(attention_mask, to=ir.DataType.INT32))


class _EncoderModel(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.encoder = _Encoder(shape)
        self.decoder = _CrossProjections(shape)

    def forward(self, op: Op, input_ids: ir.Value, mask: ir.Value) -> list[ir.Value]:
        return self.decoder(op, self.encoder(op, input_ids, mask))


class _Encoder(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.embed_tokens = Embedding(shape.vocab_size, shape.d_model)
        self.embed_positions = Embedding(shape.max_positions + POSITION_OFFSET, shape.d_model)
        self.layernorm_embedding = ResidualNorm(shape.d_model, EPSILON)
        self.layers = nn.ModuleList([_EncoderLayer(shape) for _ in range(shape.encoder_layers)])
        self._embed_scale = shape.embed_scale

    def forward(self, op: Op, input_ids: ir.Value, mask: ir.Value) -> ir.Value:
        zero = op.Constant(value_ints=[0])
        length = op.Squeeze(op.Shape(input_ids, start=1, end=2), zero)
        first = op.Constant(value_int=POSITION_OFFSET)
        places = op.Range(first, op.Add(length, first), op.Constant(value_int=1))
        words = _scaled(op, self.embed_tokens(op, input_ids), self._embed_scale)
        positions = op.Expand(op.Unsqueeze(self.embed_positions(op, places), zero), op.Shape(words))
        x = self.layernorm_embedding(op, words, positions)
        for layer in self.layers:
            x = layer(op, x, mask)
        return x


class _EncoderLayer(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.self_attn = _EncoderSelfAttention(shape)
        self.self_attn_layer_norm = ResidualNorm(shape.d_model, EPSILON)
        self.fc1 = Linear(shape.d_model, shape.encoder_ffn_dim, bias="deferred")
        self.fc2 = Linear(shape.encoder_ffn_dim, shape.d_model, bias="deferred")
        self.final_layer_norm = ResidualNorm(shape.d_model, EPSILON)
        self._activation = shape.activation

    def forward(self, op: Op, x: ir.Value, mask: ir.Value) -> ir.Value:
        y = self.self_attn(op, x, mask)
        x = self.self_attn_layer_norm(op, y, x, self.self_attn.out_proj.bias)
        y = self.fc2(op, activate(op, self._activation, self.fc1(op, x), self.fc1.bias))
        return self.final_layer_norm(op, y, x, self.fc2.bias)


class _EncoderSelfAttention(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.q_proj = Linear(shape.d_model, shape.d_model)
        self.k_proj = Linear(shape.d_model, shape.d_model)
        self.v_proj = Linear(shape.d_model, shape.d_model)
        self.out_proj = Linear(shape.d_model, shape.d_model, bias="deferred")
        self._num_heads = shape.encoder_heads

    def forward(self, op: Op, x: ir.Value, mask: ir.Value) -> ir.Value:
        q, k, v = self.q_proj(op, x), self.k_proj(op, x), self.v_proj(op, x)
        return self.out_proj(op, attention(op, q, k, v, num_heads=self._num_heads, mask=mask))


class _CrossProjections(nn.Module):
    """The decoder's keys and values of the encoded documents, made once instead of once a beam."""

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
        self._heads = [0, 0, shape.decoder_heads, shape.d_model // shape.decoder_heads]

    def forward(self, op: Op, states: ir.Value) -> tuple[ir.Value, ir.Value]:
        def split_heads(x: ir.Value) -> ir.Value:  # [N, S, H·K] -> [N, H, S, K]
            return op.Transpose(op.Reshape(x, self._heads), perm=[0, 2, 1, 3])

        return split_heads(self.k_proj(op, states)), split_heads(self.v_proj(op, states))


@dataclass(frozen=True)
class StepInputs:
    """The decoder step's inputs; shapes are in :class:`BartDecoder` and :class:`Mixture`."""

    token_ids: ir.Value
    beam_indices: ir.Value
    position: ir.Value
    context_attention_mask: ir.Value
    log_weights: ir.Value
    beam_scores: ir.Value
    num_candidates: ir.Value
    probe_ids: ir.Value
    cross: list[tuple[ir.Value, ir.Value]]
    past: list[tuple[ir.Value, ir.Value]]


class BartDecoder(nn.Module):
    """One decoding step of every beam, with the mixture over documents at its end.

    token_ids               int64 [Q, B]      the last token of each beam
    beam_indices            int64 [Q, B]      which beam of the past each beam continues
    position                int64 [1]         T, the number of tokens in the past
    context_attention_mask  int64 [Q, D, S]
    cross (each layer)      float32 [Q·D, H, S, K] key and value, from the encoder graph
    past (each layer)       float32 [Q, D, B', H, T, K] key and value; T = 0 in the first step

    Returns :class:`Mixture`'s outputs, then the present [Q, D, B, H, T+1, K] of each layer.
    """

    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.model = _DecoderModel(shape)
        self.lm_head = Linear(shape.d_model, shape.vocab_size, bias=False)
        self.final_logits_bias = nn.Parameter([1, shape.vocab_size]) if shape.has_logits_bias else None
        self.mixture = Mixture()

    def forward(self, op: Op, step: StepInputs) -> list[ir.Value]:
        states, presents = self.model(op, step)
        logits = self.lm_head(op, states)
        if self.final_logits_bias is not None:
            logits = op.Add(logits, float32(op, self.final_logits_bias))
        chosen = self.mixture(
            op, logits, step.log_weights, step.beam_scores, step.num_candidates, step.probe_ids
        )
        return [*chosen, *presents]


class _DecoderModel(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.decoder = _Decoder(shape)

    def forward(self, op: Op, step: StepInputs) -> tuple[ir.Value, list[ir.Value]]:
        return self.decoder(op, step)


class _Decoder(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.embed_tokens = Embedding(shape.vocab_size, shape.d_model)
        self.embed_positions = Embedding(shape.max_positions + POSITION_OFFSET, shape.d_model)
        self.layernorm_embedding = ResidualNorm(shape.d_model, EPSILON)
        self.layers = nn.ModuleList([_DecoderLayer(shape) for _ in range(shape.decoder_layers)])
        self._shape = shape

    def forward(self, op: Op, step: StepInputs) -> tuple[ir.Value, list[ir.Value]]:
        axes = _Axes(op, step, self._shape)
        words = _scaled(op, self.embed_tokens(op, step.token_ids), self._shape.embed_scale)  # [Q, B, d_model]
        place = op.Add(step.position, op.Constant(value_ints=[POSITION_OFFSET]))
        positions = op.Expand(self.embed_positions(op, place), op.Shape(words))
        x = axes.over_documents(op, self.layernorm_embedding(op, words, positions))
        presents = []
        for layer, cross, past in zip(self.layers, step.cross, step.past, strict=True):
            x, *present = layer(op, x, axes, cross, past)
            presents += present
        return x, presents


class _Axes:
    """The views of one step's beams, with the shapes and indices that all layers share.

    Cross-attention sees the beams as queries of a document, [Q·D, B, ...]; self-attention sees every
    beam under every document as a sequence of its own, [Q·D·B, ...].
    """

    def __init__(self, op: Op, step: StepInputs, shape: BartShape) -> None:
        q, d, b = (op.Shape(step.log_weights, start=i, end=i + 1) for i in range(3))
        t = op.Shape(step.past[0][0], start=4, end=5)
        s = op.Shape(step.context_attention_mask, start=2, end=3)
        one, rest = op.Constant(value_ints=[1]), op.Constant(value_ints=[-1])
        heads, model = op.Constant(value_ints=[shape.decoder_heads]), op.Constant(value_ints=[shape.d_model])
        head_size = op.Constant(value_ints=[shape.d_model // shape.decoder_heads])
        rows = op.Mul(op.Mul(q, d), b)  # said outright: -1 cannot stand for it while the past is empty
        self._spread = op.Concat(q, d, b, model, axis=0)
        self._queries = op.Concat(rest, b, model, axis=0)
        self._sequences = op.Concat(rest, one, model, axis=0)
        self._past = op.Concat(rows, heads, t, head_size, axis=0)
        self._present = op.Concat(q, d, b, heads, op.Add(t, one), head_size, axis=0)
        # [Q, B] -> [Q, D, B, 1]: GatherND's index into the beam axis of [Q, D, B', H, T, K]
        parents = op.Unsqueeze(step.beam_indices, op.Constant(value_ints=[1, 3]))
        self._parents = op.Expand(parents, op.Concat(q, d, b, one, axis=0))
        mask = op.Cast(step.context_attention_mask, to=ir.DataType.INT32)
        self.mask = op.Reshape(mask, op.Concat(rest, s, axis=0))  # [Q·D, S]

    def over_documents(self, op: Op, x: ir.Value) -> ir.Value:
        """[Q, B, d_model] -> [Q·D, B, d_model]."""
        spread = op.Expand(op.Unsqueeze(x, op.Constant(value_ints=[1])), self._spread)
        return op.Reshape(spread, self._queries)

    def sequences(self, op: Op, x: ir.Value) -> ir.Value:
        """[Q·D, B, d_model] -> [Q·D·B, 1, d_model]."""
        return op.Reshape(x, self._sequences)

    def queries(self, op: Op, x: ir.Value) -> ir.Value:
        """[Q·D·B, 1, d_model] -> [Q·D, B, d_model]."""
        return op.Reshape(x, self._queries)

    def continued(self, op: Op, past: ir.Value) -> ir.Value:
        """The past of the beams that go on, [Q, D, B', H, T, K] -> [Q·D·B, H, T, K]."""
        return op.Reshape(op.GatherND(past, self._parents, batch_dims=2), self._past, allowzero=1)

    def present(self, op: Op, present: ir.Value) -> ir.Value:
        """[Q·D·B, H, T+1, K] -> [Q, D, B, H, T+1, K]."""
        return op.Reshape(present, self._present)


class _DecoderLayer(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.self_attn = _DecoderSelfAttention(shape)
        self.self_attn_layer_norm = ResidualNorm(shape.d_model, EPSILON)
        self.encoder_attn = _CrossAttention(shape)
        self.encoder_attn_layer_norm = ResidualNorm(shape.d_model, EPSILON)
        self.fc1 = Linear(shape.d_model, shape.decoder_ffn_dim, bias="deferred")
        self.fc2 = Linear(shape.decoder_ffn_dim, shape.d_model, bias="deferred")
        self.final_layer_norm = ResidualNorm(shape.d_model, EPSILON)
        self._activation = shape.activation

    def forward(
        self,
        op: Op,
        x: ir.Value,
        axes: _Axes,
        cross: tuple[ir.Value, ir.Value],
        past: tuple[ir.Value, ir.Value],
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        y, present_key, present_value = self.self_attn(op, x, axes, past)
        x = self.self_attn_layer_norm(op, y, x, self.self_attn.out_proj.bias)
        y = self.encoder_attn(op, x, cross, axes.mask)
        x = self.encoder_attn_layer_norm(op, y, x, self.encoder_attn.out_proj.bias)
        y = self.fc2(op, activate(op, self._activation, self.fc1(op, x), self.fc1.bias))
        return self.final_layer_norm(op, y, x, self.fc2.bias), present_key, present_value


class _DecoderSelfAttention(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.q_proj = Linear(shape.d_model, shape.d_model)
        self.k_proj = Linear(shape.d_model, shape.d_model)
        self.v_proj = Linear(shape.d_model, shape.d_model)
        self.out_proj = Linear(shape.d_model, shape.d_model, bias="deferred")
        self._num_heads = shape.decoder_heads

    def forward(
        self, op: Op, x: ir.Value, axes: _Axes, past: tuple[ir.Value, ir.Value]
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        q, k, v = (axes.sequences(op, proj(op, x)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        past_key, past_value = (axes.continued(op, p) for p in past)
        y, *present = attention_with_past(op, q, k, v, (past_key, past_value), num_heads=self._num_heads)
        present_key, present_value = (axes.present(op, p) for p in present)
        return self.out_proj(op, axes.queries(op, y)), present_key, present_value


class _CrossAttention(nn.Module):
    def __init__(self, shape: BartShape) -> None:
        super().__init__()
        self.q_proj = Linear(shape.d_model, shape.d_model)
        self.out_proj = Linear(shape.d_model, shape.d_model, bias="deferred")
        self._num_heads = shape.decoder_heads

    def forward(self, op: Op, x: ir.Value, cross: tuple[ir.Value, ir.Value], mask: ir.Value) -> ir.Value:
        y = attention(op, self.q_proj(op, x), *cross, num_heads=self._num_heads, mask=mask)
        return self.out_proj(op, y)


def _scaled(op: Op, x: ir.Value, scale: float) -> ir.Value:
    return x if scale == 1.0 else op.Mul(x, op.Constant(value_float=scale))
