"""Questions files and the passages that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ragengine.errors import PassagesError
from ragengine_train.data import TrainingPassages
from tests.support.training_world import examples_of


def test_copies_of_a_passage(tmp_path: Path, corpus: TrainingPassages) -> None:
    inline = {"title": "A", "text": "changed a"}
    examples = examples_of(
        tmp_path,
        corpus,
        {"passage_id": "a2"},
        {"passage_id": "a", "passage": inline},
        {"passage": {"title": "N", "text": "n"}},
    )
    assert [example.passage for example in examples] == [2, 4, 5]
    assert corpus.copy_of == [0, 1, 0, 3, 0, 5]
    assert corpus.indexed == 4


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"passage_id": "zz"}, "line 1: the passage 'zz' is not in the passages file"),
        ({"hard_negative_ids": ["a", "yy"]}, "'yy' is not in"),
        ({"answers": "x"}, "is not {"),
        ({"passage": {"title": "t"}}, "line 1, \"passage\": there is no 'text', only 'title'"),
        ({"passage": "t"}, '"passage" is not'),
        ({"passage_id": 7}, '"passage_id" is 7; write a string'),
        ({"passage_id": "zz", "passage": {"title": "t", "text": "u"}}, "'zz' is not in"),
        ({"hard_negative_ids": "c"}, "\"hard_negative_ids\" is 'c'; write a list"),
        ({"question": "\ud800"}, "is not {"),
    ],
)
def test_wrong_line(tmp_path: Path, corpus: TrainingPassages, entry: dict[str, Any], said: str) -> None:
    with pytest.raises(PassagesError, match=said):
        examples_of(tmp_path, corpus, entry)
