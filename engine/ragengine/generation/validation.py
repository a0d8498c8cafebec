"""Checks of what :class:`Generator` is given, before anything is computed."""

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import IntArray
from ragengine.bundle.manifest import GeneratorSpec
from ragengine.errors import InputError, OptionsError
from ragengine.generation.contexts import Contexts
from ragengine.generation.marginalization import Marginalize, log_prior
from ragengine.generation.search.rules import AllowedTokens
from ragengine.messages import short_repr
from ragengine.options import GenerationOptions


def checked_contexts(spec: GeneratorSpec, ids: Any, mask: Any, doc_scores: Any) -> Contexts:
    """Contexts of token ids and mask, int64 [Q, D, S], and of q(x)·d(z), float32 [Q, D]."""
    ids, mask = _array("context_input_ids", ids), _array("context_attention_mask", mask)
    doc_scores = _array("doc_scores", doc_scores)
    if ids.ndim != 3 or 0 in ids.shape or ids.dtype.kind not in "iu":
        raise _unfit("context_input_ids", ids, "int64 [Q, D, S]")
    if mask.shape != ids.shape or mask.dtype.kind not in "iub":
        raise _unfit("context_attention_mask", mask, f"int64 {list(ids.shape)}")
    if doc_scores.shape != ids.shape[:2] or doc_scores.dtype.kind != "f":
        raise _unfit("doc_scores", doc_scores, f"float32 {list(ids.shape[:2])}")
    if ids.shape[2] > spec.longest:
        raise InputError(f"Documents have {ids.shape[2]} tokens; the generator reads at most {spec.longest}.")
    if not (mask != 0).any(axis=2).all():
        raise InputError("A document has no token that the mask shows; mask at least one as 1.")
    check_tokens("context_input_ids", ids, spec)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and said to be
        scores = doc_scores.astype(np.float32)
    return Contexts(ids.astype(np.int64, copy=False), (mask != 0).astype(np.int64), log_prior(scores))


def checked_labels(spec: GeneratorSpec, labels: Any, questions: int) -> IntArray:
    """Labels of ``questions`` questions, int64 [Q, T], or several of one question."""
    labels = _array("labels", labels)
    fitting = labels.ndim == 2 and (len(labels) == questions or questions == 1)
    if not fitting or labels.dtype.kind not in "iu" or not labels.size:
        raise _unfit("labels", labels, f"int64 [{questions}, T], T >= 1,")
    if questions == 1 and (labels[:, 0] != labels[0, 0]).any():
        raise InputError("Several labels of one question start with different tokens; score them apart.")
    if labels.shape[1] > spec.longest:
        raise InputError(
            f"labels have {labels.shape[1]} tokens; the generator writes at most {spec.longest}."
        )
    check_tokens("labels", labels, spec)
    checked: IntArray = labels.astype(np.int64)
    return checked


def check_streamable(options: GenerationOptions, default: GenerationOptions | None = None) -> None:
    """Refuse a search whose first token is not known before its last.

    The error says how to ask, and which settings are the model's own, ``default``, not the caller's.
    """
    remedy: dict[str, Any] = {}
    if options.num_beams > 1:
        remedy["num_beams"] = 1
        if options.num_return_sequences > 1:
            remedy["num_return_sequences"] = 1
    if options.do_sample:
        remedy["do_sample"] = False
    if options.marginalize == "sequence" and options.search != "joint":
        remedy["search"] = "joint"
    if not remedy:
        return

    def said(name: str) -> str:
        value = getattr(options, name)
        own = default is not None and getattr(default, name) == value
        return f"{name}={value!r}{' (the default of this model)' * own}"

    kind = "RAG-Sequence" if "search" in remedy else "A search"
    raise OptionsError(
        f"{kind} with {', '.join(map(said, remedy))} cannot stream: what comes first may change until "
        f"the end; give {', '.join(f'{name}={value!r}' for name, value in remedy.items())}."
    )


def checked_marginalize(marginalize: Any, default: Marginalize) -> Marginalize:
    """``marginalize``, the default where it is None."""
    if marginalize is None:
        return default
    if not isinstance(marginalize, str) or marginalize not in ("token", "sequence"):
        raise OptionsError(f"marginalize is {short_repr(marginalize)}, it must be 'token' or 'sequence'.")
    return "token" if marginalize == "token" else "sequence"


def checked_allowed(allowed_tokens: Any, vocab_size: int) -> AllowedTokens | None:
    """``prefix_allowed_tokens_fn`` with what it returns checked; its own exceptions come out as they are."""
    if allowed_tokens is None:
        return None
    if not callable(allowed_tokens):
        raise InputError(
            f"prefix_allowed_tokens_fn is {type(allowed_tokens).__name__}; it must be a function."
        )

    def allowed(question: int, tokens: IntArray) -> list[int]:
        found = allowed_tokens(question, tokens)
        if not isinstance(found, Iterable):
            raise _no_tokens(found, question)
        found = list(found)  # of a generator: where an exception of its own comes out
        try:
            ids = [operator.index(token) for token in found]
        except TypeError as reason:
            raise _no_tokens(found, question) from reason
        outside = [token for token in ids if not 0 <= token < vocab_size]
        if outside:
            raise InputError(
                f"prefix_allowed_tokens_fn returned token {outside[0]} for question {question}; the "
                f"vocabulary has tokens 0 to {vocab_size - 1}."
            )
        return ids

    return allowed


def numbered_from(first: int, allowed_tokens: AllowedTokens | None) -> AllowedTokens | None:
    """``allowed_tokens`` for questions that are counted from ``first``."""
    if allowed_tokens is None:
        return None
    return lambda question, tokens: allowed_tokens(first + question, tokens)


def check_tokens(name: str, ids: NDArray[Any], spec: GeneratorSpec) -> None:
    """Refuse token ids outside the vocabulary; ``name`` is what the error calls them."""
    if ids.min() < 0 or ids.max() >= spec.vocab_size:
        raise InputError(
            f"{name} hold token {ids.min() if ids.min() < 0 else ids.max()}; "
            f"the vocabulary has tokens 0 to {spec.vocab_size - 1}."
        )


def _no_tokens(found: Any, question: int) -> InputError:
    return InputError(
        f"prefix_allowed_tokens_fn returned {short_repr(found)} for question {question}; it must "
        "return token ids."
    )


def _array(name: str, given: Any) -> NDArray[Any]:
    try:
        return np.asarray(given)
    except (ValueError, TypeError, OverflowError, RuntimeError) as reason:
        # rows of different lengths, or a tensor with its gradient
        raise InputError(f"{name} is not an array: {reason}.") from reason


def _unfit(name: str, array: NDArray[Any], expected: str) -> InputError:
    return InputError(f"{name} is {array.dtype} {list(array.shape)}; {expected} is expected.")
