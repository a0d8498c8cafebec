"""Options for every kind of search and every rule, by name, that several tests run through."""

from typing import Any

BEAMS = 4
FEW_CANDIDATES: dict[str, dict[str, Any]] = {
    "beams": {"num_beams": BEAMS, "num_return_sequences": BEAMS},
    "greedy": {},
    "n-grams": {"num_beams": BEAMS, "no_repeat_ngram_size": 1},
    "context n-grams": {"num_beams": BEAMS, "encoder_no_repeat_ngram_size": 2},
    "repetition penalty": {"num_beams": BEAMS, "repetition_penalty": 1.5},
    "bad words": {"num_beams": BEAMS, "bad_words_ids": [[5], [6, 7], [8, 9, 10]]},
    "suppressed": {
        "num_beams": BEAMS,
        "suppress_tokens": list(range(20, 60)),
        "begin_suppress_tokens": [7],
    },
    "lengths": {"num_beams": BEAMS, "min_length": 8, "min_new_tokens": 9},
    "forced": {"num_beams": BEAMS, "forced_bos_token_id": 0, "forced_eos_token_id": 2},
    "end tokens": {"num_beams": BEAMS, "eos_token_id": [2, 5, 6]},
    "allowed": {"num_beams": BEAMS},
    "thorough": {"num_beams": BEAMS, "marginalize": "sequence"},
    "fast": {"num_beams": BEAMS, "marginalize": "sequence", "search": "fast"},
    "joint": {"num_beams": BEAMS, "marginalize": "sequence", "search": "joint"},
    "top_k": {"do_sample": True, "top_k": 50, "top_p": 0.9, "temperature": 2.0, "seed": 0},
}
"""Searches whose steps bring a few candidates to the host."""
WHOLE_DISTRIBUTIONS: dict[str, dict[str, Any]] = {
    "no top_k": {"do_sample": True, "top_k": 0, "seed": 0},
    "beam-sample": {"do_sample": True, "num_beams": BEAMS, "seed": 0},
    "several draws": {"do_sample": True, "num_return_sequences": BEAMS, "seed": 0},
}
"""Searches that draw from whole distributions."""
