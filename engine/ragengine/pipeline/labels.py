"""Given answers as labels: the tokens that the decoder reads and scores."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from ragengine.arrays import FloatArray, IntArray
from ragengine.bundle.manifest import GeneratorSpec
from ragengine.errors import InputError, OptionsError
from ragengine.generation.validation import check_tokens
from ragengine.messages import short_repr
from ragengine.options import GenerationOptions
from ragengine.runtime.cancellation import NEVER, Stop
from ragengine.tokenization import Tokenizer

GivenAnswer: TypeAlias = str | Sequence[int] | IntArray
"""An answer's text as it stands, or its token ids (as in :class:`Hypothesis`)."""


def build_labels(
    answers: Sequence[GivenAnswer],
    options: GenerationOptions,
    *,
    tokenizer: Tokenizer,
    spec: GeneratorSpec,
    with_bos: bool | None,
    stop: Stop = NEVER,
) -> IntArray:
    """Labels int64 [Q, 1 + T] for `Generator.score`: the start token, the answer, pads.

    A text becomes the tokens that a search would have produced: ``forced_bos_token_id`` if the model has
    one (``with_bos`` says otherwise), the text's own tokens, and an end token.  Token ids stay as they are.
    """
    if not all(isinstance(answer, (str, Sequence, np.ndarray)) for answer in answers):
        raise InputError("An answer must be a str or a list of token ids.")
    begin = [_bos(options, spec)] if _has_bos(options, with_bos) else []
    given = [answer for answer in answers if isinstance(answer, str)]
    texts = tokenizer.encode_bare(given, spec.longest, stop)
    of_texts = iter([*begin, *tokens, *options.eos_token_ids[:1]] for tokens in texts)
    rows = [next(of_texts) if isinstance(answer, str) else _token_ids(answer, spec) for answer in answers]
    longest = max(map(len, rows))
    if longest >= spec.longest:
        raise InputError(
            f"An answer has {longest} tokens or more; the generator scores at most {spec.longest - 1}."
        )
    for answer, row in zip(answers, rows, strict=True):
        if spec.pad_token_id in row:
            raise InputError(
                f"The answer {short_repr(answer)} holds the pad token {spec.pad_token_id}, which is never "
                "scored; leave it out."
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


def _token_ids(answer: Sequence[int] | IntArray, spec: GeneratorSpec) -> list[int]:
    try:
        tokens = np.asarray(answer)
    except (ValueError, OverflowError) as reason:
        raise InputError(f"An answer's token ids are not an array: {reason}.") from reason
    if tokens.ndim != 1 or not tokens.size or tokens.dtype.kind not in "iu":
        raise InputError(
            f"An answer's token ids are {tokens.dtype} {list(tokens.shape)}; int64 [T], T >= 1, is expected."
        )
    check_tokens("An answer's token ids", tokens, spec)
    ids: list[int] = tokens.tolist()
    return ids
