"""The file of a calibration: strict JSON that reads back, and names what is wrong with it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine.confidence.features import FEATURES
from ragengine.confidence.model import CALIBRATION, ConfidenceModel, Logistic, relevant_options
from ragengine.errors import IndexFolderError
from ragengine.options import GenerationOptions

COUNT = len(FEATURES)
MODEL = ConfidenceModel(
    bundle="a" * 64,
    index="b" * 64,
    options=relevant_options(GenerationOptions(num_beams=2)),
    features=list(FEATURES),
    means=[0.5] * COUNT,
    scales=[2.0] * COUNT,
    answerable=Logistic(1.0, [0.25] * COUNT),
    right=Logistic(-1.0, [0.0] * (COUNT - 1) + [1.0]),
    common_words={"the": 0.1},
    threshold=0.75,
    error_rate=0.05,
    created_by="ragengine",
    questions=100,
    unanswerable=10,
)


def test_it_reads_back_as_it_was_written(tmp_path: Path) -> None:
    assert ConfidenceModel.read(tmp_path) is None
    MODEL.write(tmp_path)
    assert ConfidenceModel.read(tmp_path) == MODEL
    assert [path.name for path in tmp_path.iterdir()] == [CALIBRATION]


def test_the_confidence_is_the_product_of_two_logistic_models() -> None:
    values = np.linspace(-30, 30, COUNT)
    standard = np.clip((values - 0.5) / 2, -8, 8)
    answerable = 1 / (1 + np.exp(-(1 + 0.25 * standard.sum())))
    right = 1 / (1 + np.exp(-(-1 + standard[-1])))
    confidence, answerability = MODEL.probabilities(values)
    assert float(answerability) == pytest.approx(answerable)
    assert float(confidence) == pytest.approx(answerable * right)
    both = MODEL.probabilities(np.stack([values, values]))[0]
    assert both.tolist() == pytest.approx([float(confidence)] * 2)


def test_options_count_but_for_the_number_of_hypotheses() -> None:
    assert MODEL.fits(GenerationOptions(num_beams=2, num_return_sequences=2))
    assert not MODEL.fits(GenerationOptions(num_beams=3))
    assert not MODEL.fits(GenerationOptions(num_beams=2, n_docs=1))


def test_an_option_that_came_later_had_its_default() -> None:
    options = {name: value for name, value in MODEL.options.items() if name != "seed"}
    older = dataclasses.replace(MODEL, options=options)
    assert older.fits(GenerationOptions(num_beams=2))
    assert not older.fits(GenerationOptions(num_beams=2, seed=7))


def changed(**values: Any) -> str:
    return json.dumps(MODEL.to_dict() | values)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ('{"format": "other"}', "is not a ragengine-calibration"),
        (changed(format_version=2), "has format version 2, this ragengine reads 1"),
        (changed(threshold=1.5), "threshold: 1.5 is not from 0 to 1"),
        (changed(scales=[0.0] * COUNT), "scales"),
        (changed(means=[0.0]), "of other features"),
        (changed(features=["new"] * COUNT), "of other features"),
        (changed(bundle="x"), "bundle"),
        (changed(answerable={"intercept": 0.0}), "answerable.weights: missing"),
        (changed(threshold="NaN").replace('"NaN"', "NaN"), "cannot be read"),
        (changed(common_words={"the": 2}), "common_words"),
    ],
)
def test_a_damaged_file_is_named_with_its_remedy(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / CALIBRATION).write_text(text)
    with pytest.raises(IndexFolderError, match="remove it or run ragengine calibrate again") as raised:
        ConfidenceModel.read(tmp_path)
    assert said in str(raised.value)


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    MODEL.write(tmp_path)
    wrong = dataclasses.replace(MODEL, threshold=2.0)
    with pytest.raises(IndexFolderError, match="threshold"):
        wrong.write(tmp_path)
    assert ConfidenceModel.read(tmp_path) == MODEL
    assert [path.name for path in tmp_path.iterdir()] == [CALIBRATION]
    with pytest.raises(IndexFolderError, match="cannot be written"):
        MODEL.write(tmp_path / "absent")
