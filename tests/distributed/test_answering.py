"""Ray Data's `map_batches` answers as `answer_file` does (`make test-ray`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine import answer_file
from ragengine.errors import InputError, OptionsError
from tests.support.paths import WORLDFACTS

pytestmark = pytest.mark.ray

BUNDLE, INDEX = WORLDFACTS / "bundle", WORLDFACTS / "index"
OPTIONS: dict[str, Any] = {"n_docs": 2, "max_length": 8, "num_beams": 1}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 << 20)
    yield
    ray.shutdown()


def test_two_actors_answer_as_one_call(cluster: None, tmp_path: Path) -> None:
    """The rows come back with the same records, which Parquet can hold; a wrong one has its error."""
    import ray

    from ragengine_ray import Answerer

    lines = (WORLDFACTS / "questions.jsonl").read_text("utf-8").splitlines()[:12]
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    answer_file(BUNDLE, INDEX, tmp_path / "q.jsonl", tmp_path / "a.jsonl", batch_size=4, threads=1, **OPTIONS)
    expected = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text("utf-8").splitlines()]

    rows: list[dict[str, Any]] = [{"q": json.loads(line)["question"], "n": n} for n, line in enumerate(lines)]
    answered = ray.data.from_items(rows, override_num_blocks=3).map_batches(
        Answerer,
        fn_constructor_kwargs={"bundle": str(BUNDLE), "index": str(INDEX), "question": "q", **OPTIONS},
        compute=ray.data.ActorPoolStrategy(size=2),
        batch_size=4,
    )
    answered.write_parquet(str(tmp_path / "parquet"))
    found = sorted(ray.data.read_parquet(str(tmp_path / "parquet")).take_all(), key=lambda row: row["n"])
    assert len(found) == 12
    for row, line in zip(found, expected, strict=True):
        record = {name: value for name, value in line.items() if name not in ("line", "id", "run")}
        assert json.loads(row["record"]) == record
        assert (row["answer"], row["log_prob"]) == (record["answer"], record["log_prob"])
        assert json.loads(row["document_ids"]) == [document["id"] for document in record["documents"]]
        assert row["error"] is None
        assert 0 <= row["confidence"] <= 1 or record["confidence"] is None


def test_a_row_without_a_text_has_an_error_and_the_others_their_answers() -> None:
    from ragengine_ray import Answerer

    answer = Answerer(BUNDLE, INDEX)
    column = np.array(["What is the capital of Iceland?", None, "What is the capital of Peru?"], object)
    found = answer({"question": column})
    assert found["answer"].tolist() == ["Reykjavik", None, "Lima"]
    assert found["error"][1] == "InputError: The question is NoneType; it must be a str."
    assert np.isnan(found["log_prob"]).tolist() == [False, True, False]
    with pytest.raises(InputError, match="The batch has the columns text; name the one"):
        answer({"text": column})


def test_wrong_settings() -> None:
    from ragengine_ray import Answerer

    with pytest.raises(OptionsError, match="num_beams is 0"):
        Answerer(BUNDLE, INDEX, num_beams=0)
