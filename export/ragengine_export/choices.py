"""What an export may be asked for; imports nothing that the command line's help would have to wait for."""

from typing import Final, Literal, TypeAlias, get_args

Precision: TypeAlias = Literal["fp32", "fp16", "int8", "int4"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)

Part: TypeAlias = Literal[
    "question encoder", "keys and values", "embeddings and head", "attention", "feed-forward"
]
PARTS: Final[tuple[Part, ...]] = get_args(Part)
"""What int8 and int4 round: an encoder, what the decoder keeps of documents, matrices of the generator."""

Pooling: TypeAlias = Literal["cls", "mean", "max", "mean_sqrt_len", "weighted_mean", "last_token"]
POOLINGS: Final[tuple[Pooling, ...]] = get_args(Pooling)
GivenPooling: TypeAlias = Pooling | Literal["pooler"]
GIVEN_POOLINGS: Final[tuple[GivenPooling, ...]] = (*POOLINGS, "pooler")
"""What ``--pooling`` may be: a pooling, or the layer that BERT itself has behind its first token."""
