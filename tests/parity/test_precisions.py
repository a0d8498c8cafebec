"""int8, int4 and fp16 on a CPU ignore no option, and score as near to fp32 as the export says."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragengine_bench.checkpoints.generators import GENERATORS
from ragengine_bench.checkpoints.rag_checkpoint import random_spec
from ragengine_bench.parity.pairs import build_pair
from ragengine_bench.parity.precisions import Precisions
from ragengine_export.choices import Precision
from tests.support.models import transformers_5

PRECISIONS: tuple[Precision, ...] = ("int8", "int4", "fp16")
FAST = [(precision, 4000 + number, "bart") for number, precision in enumerate(PRECISIONS)]
_KIN = [("int8", 4003, "t5"), ("fp16", 4004, "flan-t5"), ("int4", 4005, "mbart")]
SLOW = [(precision, seed, "bart") for precision in PRECISIONS for seed in range(4010, 4016)]
SLOW += [(precision, 4020, name) for precision in PRECISIONS for name in GENERATORS if name != "bart"]
TRIALS = 6


@pytest.mark.parametrize(
    ("precision", "seed", "name"),
    [
        *FAST,
        *(pytest.param(*case, marks=transformers_5) for case in _KIN),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW),
    ],
)
def test_random_options_in_another_precision(
    precision: Precision, seed: int, name: str, tmp_path: Path
) -> None:
    both = Precisions(
        build_pair(random_spec(seed, model_type=name), tmp_path), precision, tmp_path / precision
    )
    for number in range(TRIALS):
        trial = both.trial(("token", "sequence")[number % 2], number)
        assert trial.faults == [], trial.options
        assert max(trial.differences) <= both.stated, trial.options


def test_the_judge_sees_an_option_that_is_ignored(tmp_path: Path) -> None:
    spec = random_spec(4000, forced_bos=False, forced_eos=False)
    both = Precisions(build_pair(spec, tmp_path), "int8", tmp_path / "int8")
    options = {"marginalize": "token", "num_beams": 2, "max_length": 8, "min_length": 7}
    answer = both.other.generate("where is it?", **options)
    tokens = answer.hypotheses[0].token_ids.tolist()
    assert both.faults(answer, options) == []
    ignored = [
        {"suppress_tokens": [tokens[0]]},
        {"begin_suppress_tokens": [tokens[0]]},
        {"bad_words_ids": [tokens[1:3]]},
        {"forced_bos_token_id": tokens[0] + 1},
        {"forced_eos_token_id": tokens[-1] + 1},
        {"eos_token_id": tokens[1]},
        {"max_length": 7, "min_length": 0},
        {"min_new_tokens": 7, "max_length": 9},
        {"n_docs": len(answer.documents) + 1},
    ]
    for option in ignored:
        assert both.faults(answer, options | option), option
