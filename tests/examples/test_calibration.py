"""worldfacts ships calibrated: the file belongs to bundle and index, and its figures are those asked for."""

import hashlib
import importlib
import json
import sys
from typing import Any

import numpy as np
import pytest

from ragengine import Bundle, RagEngine, evaluate
from ragengine.confidence.model import ConfidenceModel
from ragengine.evaluation.questions import Question
from ragengine.retrieval.manifest import IndexManifest, manifest_fingerprint
from tests.support.paths import WORLDFACTS


@pytest.fixture(scope="module")
def split() -> Any:
    sys.path.insert(0, str(WORLDFACTS))
    try:
        return importlib.import_module("calibrate")
    finally:
        sys.path.remove(str(WORLDFACTS))


def rows() -> list[dict[str, Any]]:
    files = ("questions.jsonl", "questions_unanswerable.jsonl")
    return [
        json.loads(line) for file in files for line in (WORLDFACTS / file).read_text("utf-8").splitlines()
    ]


def test_no_wording_is_in_both_halves(split: Any) -> None:
    halves = split.split(rows())
    patterns = {name: {split.pattern(row["question"]) for row in part} for name, part in halves.items()}
    assert not patterns["dev"] & patterns["test"]
    counts = {name: (len(part), sum(not row["answers"] for row in part)) for name, part in halves.items()}
    assert counts == {"dev": (1151, 86), "test": (1166, 74)}
    assert split.pattern("Whatt continent is Riyadh part of?") == "What continent is {x} part of?"
    text = "What continent is {x} part of?"
    odd = hashlib.sha256(f"split:{text}".encode()).digest()[0] % 2
    assert split.half("What continent is Riyadh part of?") == ("test" if odd else "dev")


def test_another_salt_makes_another_split_of_the_wordings(split: Any) -> None:
    questions = [row["question"] for row in rows()][::40]
    halves = [[split.half(question, f"split {number}") for question in questions] for number in range(3)]
    assert len(set(map(tuple, halves))) == 3
    for half in halves:
        sides: dict[str, set[str]] = {}
        for question, side in zip(questions, half, strict=True):
            sides.setdefault(split.pattern(question), set()).add(side)
        assert all(len(both) == 1 for both in sides.values())


def test_the_calibration_is_of_this_bundle_and_index() -> None:
    model = ConfidenceModel.read(WORLDFACTS / "index")
    assert model is not None
    assert model.bundle == Bundle.open(WORLDFACTS / "bundle", verify="size").fingerprint
    assert model.index == manifest_fingerprint(IndexManifest.read(WORLDFACTS / "index"))
    assert (model.questions, model.unanswerable, model.error_rate) == (1151, 86, 0.05)


def test_its_figures_on_the_other_half() -> None:
    model = ConfidenceModel.read(WORLDFACTS / "index")
    assert model is not None
    tested = model.report["test"]
    assert (tested["n"], tested["unanswerable"]) == (1166, 74)
    assert tested["auroc_answerable"] >= 0.88
    assert tested["error"] < 0.05
    assert tested["answered"] > 0.6
    assert tested["auroc_answerable"] > tested["auroc_answerable_by_probability"] + 0.05


@pytest.mark.slow
def test_the_figures_are_measured_again(split: Any) -> None:
    """The other half is asked once more, by the engine as it ships."""
    asked = [Question(row["question"], tuple(row["answers"])) for row in split.split(rows())["test"]]
    model = ConfidenceModel.read(WORLDFACTS / "index")
    assert model is not None
    with RagEngine.load(WORLDFACTS / "bundle", index=WORLDFACTS / "index", device="cpu") as engine:
        found = evaluate(engine, asked, resamples=0).confidence
    assert found is not None
    told = model.report["test"]
    for name in ("auroc_right", "auroc_answerable", "auroc_answerable_by_confidence", "answered", "error"):
        np.testing.assert_allclose(getattr(found, name), told[name], atol=0.005)
