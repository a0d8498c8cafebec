"""Random generation options, in Hugging Face's names, that both sides take as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


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


def constrained_request(kind: str, seed: int, number: int, seen: list[list[int]]) -> Request:
    """A request under several rules (forced, suppressed, bad tokens, ...); `kind`: "token" or "sequence".

    Rules that name tokens name some of `seen`, answers of this checkpoint, so that they take effect. What
    transformers itself does not support is left out: `max_new_tokens` of RAG-Token (ignored), its
    `encoder_no_repeat_ngram_size` with several documents (it indexes documents as if they were questions),
    and the repetition penalty of RAG-Sequence's greedy search (on raw logits, which no other search does).
    """
    rng = np.random.default_rng([seed, number, 5 if kind == "token" else 6])
    sequence, common = kind == "sequence", sorted({token for row in seen for token in row} - {0, 1, 2})

    def pick(*options: Any) -> Any:
        return options[int(rng.integers(len(options)))]

    def chance(probability: float) -> bool:
        return bool(rng.random() < probability)

    def some_tokens(most: int) -> list[int]:
        return [int(token) for token in rng.choice(common, int(rng.integers(1, most + 1)))]

    num_beams = 1 if chance(0.15) else int(rng.integers(2, 6))
    longest = int(rng.integers(4, 15))
    options: dict[str, Any] = {"num_beams": num_beams, "n_docs": int(rng.integers(1, 5 if sequence else 7))}
    options["early_stopping"] = pick(False, True, "never")
    options["length_penalty"] = pick(0.0, 1.0, round(float(rng.uniform(-0.5, 2)), 3))
    if sequence and chance(0.5):
        options["do_deduplication"] = pick(True, False)
    if sequence or num_beams > 1:
        options["num_return_sequences"] = int(rng.integers(1, num_beams + 1))
    if sequence and chance(0.3):
        options["max_new_tokens"] = longest - 1
    else:
        options["max_length"] = longest
    if chance(0.4):
        options["no_repeat_ngram_size"] = int(rng.integers(1, 4))
    if chance(0.4) and not (sequence and num_beams == 1):
        options["repetition_penalty"] = round(float(rng.uniform(0.7, 1.9)), 3)
    if chance(0.3):
        options["min_length"] = int(rng.integers(0, longest))
    elif chance(0.4):
        options["min_new_tokens"] = int(rng.integers(0, longest - 1))
    if chance(0.25):
        options["forced_bos_token_id"] = pick(None, 0, int(rng.integers(5, 200)))
    if chance(0.25):
        options["forced_eos_token_id"] = pick(None, 2, int(rng.integers(5, 200)))
    if chance(0.3):
        options["eos_token_id"] = [2, *some_tokens(2)]
    if chance(0.2):
        options["decoder_start_token_id"] = int(rng.integers(3, 200))
    if chance(0.4):
        rows = [row for row in seen if len(row) > 3]
        words = [[token] for token in some_tokens(5)]
        for row in [rows[int(rng.integers(len(rows)))] for _ in range(4 if rows else 0)]:
            start = int(rng.integers(len(row) - 2))
            words.append(row[start : start + pick(2, 3)])
        options["bad_words_ids"] = words + pick([], [[2]])
    # A token that is forced and suppressed at once has no probability in transformers: nothing is left.
    forced = {0, 2, options.get("forced_bos_token_id"), options.get("forced_eos_token_id")}
    if chance(0.4):
        options["suppress_tokens"] = [token for token in some_tokens(6) if token not in forced] or [3]
    if chance(0.4):
        options["begin_suppress_tokens"] = [token for token in some_tokens(6) if token not in forced] or [3]
    if chance(0.3) and (sequence or options["n_docs"] == 1):
        options["encoder_no_repeat_ngram_size"] = int(rng.integers(1, 4))
        # In transformers the padding counts as n-grams too, so whether a pad may follow would depend on it.
        options["suppress_tokens"] = sorted({1, *options.get("suppress_tokens", [])})
    return Request(n_questions=pick(1, 1, 2, 3), options=options)


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
