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
