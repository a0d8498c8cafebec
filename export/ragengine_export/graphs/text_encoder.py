"""What all encoders of texts share: sizes, and the way from the states of a text's tokens to its vector."""

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from ragengine_export.choices import Pooling
from ragengine_export.graphs.layers import Linear, activate
from ragengine_export.graphs.naming import Namespace
from ragengine_export.graphs.pooling import normalized, pooled
from ragengine_export.graphs.values import FLOAT, Op, cast, known


@dataclass(frozen=True)
class DenseShape:
    """``f(x Wᵀ + b)``, with W and b under ``name`` in the state; an ``activation`` of "" is none."""

    name: str
    in_features: int
    out_features: int
    bias: bool
    activation: str


@dataclass(frozen=True)
class HeadShape:
    """How the states of a text become its vector: they are pooled, and then go through ``steps``.

    ``skipped`` is how many tokens at the beginning do not count in the pooling: those of a prompt.
    """

    pooling: tuple[Pooling, ...]
    steps: tuple[DenseShape | Literal["normalize"], ...] = ()
    skipped: int = 0


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """Sizes of an encoder.

    max_tokens       the longest text
    position_offset  rows of the table of positions before the first one; None without such a table
    dtype            what it computes in; the vectors are float32
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    max_tokens: int
    position_offset: int | None
    activation: str
    epsilon: float
    head: HeadShape
    dtype: ir.DataType = FLOAT

    @property
    def dimension(self) -> int:
        """E, the length of a vector."""
        layers = [step for step in self.head.steps if isinstance(step, DenseShape)]
        return layers[-1].out_features if layers else len(self.head.pooling) * self.hidden_size


class TextEncoder(Namespace):
    """input_ids, attention_mask int64 [N, S] -> vectors float32 [N, E].

    A family is a subclass that computes the states.  Token types are all zero, as in Hugging Face's RAG:
    neither questions nor passages are encoded with a second segment there.
    """

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self._shape = shape
        for step in shape.head.steps:
            if isinstance(step, DenseShape):
                self.add(step.name, Linear(step.in_features, step.out_features, bias=step.bias))

    def states(self, op: Op, input_ids: ir.Value, attention_mask: ir.Value) -> ir.Value:
        """The last states of every token, [N, S, hidden size]."""
        raise NotImplementedError

    def forward(self, op: Op, input_ids: ir.Value, attention_mask: ir.Value) -> ir.Value:
        head, dtype = self._shape.head, self._shape.dtype
        states = known(self.states(op, input_ids, attention_mask), dtype)
        x = pooled(op, states, attention_mask, head.pooling, head.skipped)
        for step in head.steps:
            if isinstance(step, DenseShape):
                x = self.named(op, step.name, cast(op, x, dtype))
                x = known(activate(op, step.activation, x) if step.activation else x, dtype)
            else:
                x = normalized(op, cast(op, x, FLOAT))
        return cast(op, x, FLOAT)
