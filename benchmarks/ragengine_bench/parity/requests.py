"""Random generation options, in Hugging Face's names, that both sides take as they are."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

_NAME_TOKENS = {
    "bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id",
    "eos_token_id",
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """How many questions go into one call, and with which options."""

    n_questions: int
    options: dict[str, Any]


def random_request(seed: int, number: int) -> Request:
    """The `number`-th request to the checkpoint of `seed`. Number 0 is always greedy."""
    rng = np.random.default_rng([seed, number, 3])

    def pick(*options: Any) -> Any:
        return options[int(rng.integers(len(options)))]

    num_beams = 1 if number == 0 else int(rng.integers(2, 9))
    max_length = int(rng.integers(4, 25)) if rng.random() < 0.93 else pick(2, 3, 40)
    options: dict[str, Any] = {"num_beams": num_beams, "max_length": max_length}
    if rng.random() < 0.85:  # otherwise the checkpoint's own n_docs
        options["n_docs"] = int(rng.integers(1, 11))
    if num_beams > 1:
        options["num_return_sequences"] = pick(1, num_beams, int(rng.integers(1, num_beams + 1)))
        if rng.random() < 0.8:  # otherwise the default, False
            options["early_stopping"] = pick(False, True, "never")
    if rng.random() < 0.8:  # otherwise the default, 1
        options["length_penalty"] = pick(-1.0, 0.0, round(float(rng.uniform(0.1, 0.9)), 3), 1.0, 2.0)
    if rng.random() < 0.4:
        options["min_length"] = int(rng.integers(1, max_length))
    if rng.random() < 0.6:
        options["no_repeat_ngram_size"] = pick(0, 2, 3)
    # Absent: what the checkpoint says. None: not forced, whatever the checkpoint says.
    if rng.random() < 0.35:
        options["forced_bos_token_id"] = pick(None, 0, int(rng.integers(5, 200)))
    if rng.random() < 0.35:
        options["forced_eos_token_id"] = pick(None, 2)
    return Request(n_questions=pick(1, 1, 2, 3, 4), options=options)


def with_special_tokens(request: Request, config: Any) -> Request:
    """``request`` to a generator of this config, which may number its special tokens otherwise than BART.

    Where there is no BOS, a token that the request does not name stands for it.
    """
    bos = getattr(config, "bos_token_id", None)
    if bos is None:
        named = repr([request.options.get(name) for name in _NAME_TOKENS])
        bos = next(token for token in itertools.count(3) if not re.search(rf"\b{token}\b", named))
    tokens = {0: bos, 1: config.pad_token_id, 2: config.eos_token_id}

    def renumbered(value: Any) -> Any:
        if isinstance(value, list):
            return [renumbered(part) for part in value]
        return tokens.get(value, value) if type(value) is int else value

    options = {n: renumbered(v) if n in _NAME_TOKENS else v for n, v in request.options.items()}
    return Request(request.n_questions, options)


def any_request(kind: str, seed: int, number: int, seen: list[list[int]]) -> Request:
    """A request with any options together, from none to nearly all; `kind`: "token" or "sequence".

    Options that name tokens name some of `seen`, answers of this checkpoint, so that they take effect.
    """
    rng = np.random.default_rng([seed, number, 5 if kind == "token" else 6])
    values = _values(rng, seen)
    density = rng.choice([0.0, 0.2, 0.35, 0.5, 0.7, 0.9])
    chosen = {name: value for name, value in values.items() if rng.random() < density}
    return Request(n_questions=int(rng.choice([1, 1, 2, 3])), options=_possible(kind, chosen))


def _values(rng: np.random.Generator, seen: list[list[int]]) -> dict[str, Any]:
    """A value for every option that transformers has, each drawn without regard to the others."""
    common = sorted({token for row in seen for token in row} - {0, 1, 2})
    rows = [row for row in seen if len(row) > 3]

    def pick(*options: Any) -> Any:
        return options[int(rng.integers(len(options)))]

    def between(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    def number(low: float, high: float) -> float:
        return round(float(rng.uniform(low, high)), 3)

    def some_tokens(most: int) -> list[int]:
        return [int(token) for token in rng.choice(common, between(1, most))]

    words = [[token] for token in some_tokens(5)]
    for row in [rows[int(rng.integers(len(rows)))] for _ in range(4 if rows else 0)]:
        start = int(rng.integers(len(row) - 2))
        words.append(row[start : start + pick(2, 3)])
    return {
        "num_beams": pick(1, between(2, 5)),
        "n_docs": between(1, 6),
        "do_deduplication": pick(True, False),
        "num_return_sequences": between(1, 5),
        "max_length": between(4, 14),
        "max_new_tokens": between(3, 13),
        "min_length": between(0, 13),
        "min_new_tokens": between(0, 12),
        "early_stopping": pick(False, True, "never"),
        "length_penalty": pick(0.0, 1.0, number(-0.5, 2)),
        "no_repeat_ngram_size": between(1, 3),
        "encoder_no_repeat_ngram_size": between(1, 3),
        "repetition_penalty": number(0.7, 1.9),
        "bad_words_ids": words + pick([], [[2]]),
        "suppress_tokens": some_tokens(6),
        "begin_suppress_tokens": some_tokens(6),
        "forced_bos_token_id": pick(None, 0, between(5, 199)),
        "forced_eos_token_id": pick(None, 2, between(5, 199)),
        "eos_token_id": pick(None, 2, [2, *some_tokens(2)], [2, *some_tokens(2)]),
        "decoder_start_token_id": between(3, 199),
        # without do_sample they change nothing
        "temperature": number(0.5, 2),
        "top_k": between(1, 9),
        "top_p": number(0.3, 1),
        "typical_p": number(0.3, 1),
        "epsilon_cutoff": number(0, 0.1),
    }


def _possible(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """`options` without what transformers refuses, ignores, or gets wrong (docs/concepts/transformers.md)."""
    beams, n_docs = options.get("num_beams", 1), options.get("n_docs", 1)
    ignored = {"do_deduplication", "max_new_tokens"} if kind == "token" else set()
    if kind == "token" and options.get("n_docs") != 1:
        ignored.add("encoder_no_repeat_ngram_size")  # takes documents for questions
    if kind == "sequence" and beams == 1:
        ignored.add("repetition_penalty")  # on raw logits, in this search alone
    options = {name: value for name, value in options.items() if name not in ignored}
    longest = options.get("max_new_tokens", options.get("max_length", 20) - 1) + 1
    most = {
        "num_return_sequences": beams if kind == "token" else beams * n_docs,
        "min_length": longest - 1,
        "min_new_tokens": longest - 2,
    }
    options |= {name: min(options[name], limit) for name, limit in most.items() if name in options}
    if "encoder_no_repeat_ngram_size" in options:
        # In transformers the padding counts as n-grams too, so whether a pad may follow would depend on it.
        options["suppress_tokens"] = [1, *options.get("suppress_tokens", [])]
    forced = {options.get("forced_bos_token_id"), options.get("forced_eos_token_id")}
    at_begin = {options.get("forced_eos_token_id")} if longest <= 3 else set()
    for name, never in (("suppress_tokens", forced), ("begin_suppress_tokens", at_begin)):
        if name in options:  # what is suppressed and forced at once leaves no token
            options[name] = [token for token in options[name] if token not in never] or [3]
    return options


def sequence_request(seed: int, number: int) -> Request:
    """A request to RAG-Sequence without rules. Number 0 is always greedy."""
    request = random_request(seed, number + 100)
    rng = np.random.default_rng([seed, number, 7])
    options = dict(request.options)
    options["num_beams"] = 1 if number == 0 else int(rng.integers(2, 6))
    options["max_length"] = min(options["max_length"], 16)
    options["n_docs"] = int(rng.integers(1, 6))
    options["num_return_sequences"] = int(rng.integers(1, options["num_beams"] * options["n_docs"] + 1))
    options["do_deduplication"] = bool(rng.random() < 0.6)
    if "min_length" in options:
        options["min_length"] = min(options["min_length"], options["max_length"] - 1)
    return Request(n_questions=min(request.n_questions, 3), options=options)
