"""Given answers as labels: what the decoder reads and what is scored."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from ragengine.arrays import FloatArray, IntArray
from ragengine.bundle.manifest import GeneratorSpec
from ragengine.errors import InputError, OptionsError
from ragengine.messages import short_repr
from ragengine.options import GenerationOptions
from ragengine.tokenization import Tokenizer

Output: TypeAlias = str | Sequence[int] | IntArray
"""An answer's text as it stands, or its token ids (as in :class:`Hypothesis`)."""


def build_labels(
    outputs: Sequence[Output],
    options: GenerationOptions,
    *,
    tokenizer: Tokenizer,
    spec: GeneratorSpec,
    with_bos: bool | None,
) -> IntArray:
    """Labels int64 [Q, 1 + T] for `Generator.score`: the start token, the output, pads.

    A text becomes the tokens that a search would have produced: ``forced_bos_token_id`` if the model has
    one (``with_bos`` says otherwise), the text's own tokens, and an end token.  Token ids stay as they are.
    """
    if not all(isinstance(output, (str, Sequence, np.ndarray)) for output in outputs):
        raise InputError("An answer must be a str or a list of token ids.")
    begin = [_bos(options, spec)] if _has_bos(options, with_bos) else []
    texts = tokenizer.encode_bare([output for output in outputs if isinstance(output, str)])
    of_texts = iter([*begin, *tokens, *options.eos_token_ids[:1]] for tokens in texts)
    rows = [next(of_texts) if isinstance(output, str) else _token_ids(output) for output in outputs]
    longest = max(map(len, rows))
    if longest >= spec.max_positions:
        raise InputError(
            f"An answer has {longest} tokens; the generator scores at most {spec.max_positions - 1}."
        )
    for output, row in zip(outputs, rows, strict=True):
        if spec.pad_token_id in row:
            raise InputError(
                f"The answer {short_repr(output)} holds the pad token {spec.pad_token_id}, which is never "
                "scored; "
                "leave it out."
            )
    labels = np.full((len(rows), 1 + longest), spec.pad_token_id, np.int64)
    labels[:, 0] = options.decoder_start_token_id
    for number, row in enumerate(rows):
        labels[number, 1 : 1 + len(row)] = row
    return labels


def shares(log_probs: FloatArray) -> list[float]:
    """Probabilities proportional to exp(log_probs), which sum to 1: float32 [N] -> N floats."""
    weights = np.exp(log_probs.astype(np.float64) - log_probs.max())
    return [float(weight) for weight in weights / weights.sum()]


def _has_bos(options: GenerationOptions, with_bos: bool | None) -> bool:
    return options.forced_bos_token_id is not None if with_bos is None else with_bos


def _bos(options: GenerationOptions, spec: GeneratorSpec) -> int:
    bos = spec.bos_token_id if options.forced_bos_token_id is None else options.forced_bos_token_id
    if bos is None:
        raise OptionsError("with_bos is True and the model has no BOS token; give forced_bos_token_id.")
    return bos


def _token_ids(output: Sequence[int] | IntArray) -> list[int]:
    try:
        tokens = np.asarray(output)
    except (ValueError, OverflowError) as reason:
        raise InputError(f"An answer's token ids are no array: {reason}.") from reason
    if tokens.ndim != 1 or not tokens.size or tokens.dtype.kind not in "iu":
        raise InputError(
            f"An answer's token ids are {tokens.dtype} {list(tokens.shape)}; int64 [T], T >= 1, is expected."
        )
    ids: list[int] = tokens.tolist()
    return ids
