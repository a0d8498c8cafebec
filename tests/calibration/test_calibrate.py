"""A calibration of a real model, and what becomes of it when something changes."""

import json
from pathlib import Path

import numpy as np
import pytest

from ragengine import Answer, Document, RagEngine, add_passages, calibrate, evaluate
from ragengine.calibration.observations import count_words, observe
from ragengine.calibration.run import fit_confidence
from ragengine.confidence.features import features
from ragengine.confidence.model import CALIBRATION, ConfidenceModel
from ragengine.errors import IndexFolderError, InputError
from ragengine.evaluation import read_questions
from ragengine.replay import Record, replay
from tests.calibration.conftest import BUNDLE, ERROR_RATE, Calibrated, copied

QUESTION = "What is the capital of Iceland?"
UNANSWERABLE = "How many runways does Amderma Airport have?"


@pytest.fixture(scope="module")
def engine(calibrated: Calibrated) -> RagEngine:
    return RagEngine.load(BUNDLE, index=calibrated.index, device="cpu", threads=1)


def test_a_calibration_is_beside_the_index_and_says_what_was_found(calibrated: Calibrated) -> None:
    model = ConfidenceModel.read(calibrated.index)
    assert model == calibrated.report.model
    assert (model.questions, model.unanswerable, model.error_rate) == (68, 20, ERROR_RATE)
    judged = calibrated.report.cross_validated
    assert (judged.n, judged.unanswerable, judged.threshold) == (68, 20, model.threshold)
    assert judged.error is not None
    assert judged.error < ERROR_RATE
    assert judged.auroc_right is not None
    assert judged.auroc_right > 0.6
    tested = calibrated.report.test
    assert tested is not None
    assert (tested.n, tested.unanswerable) == (32, 10)
    json.dumps(calibrated.report.to_dict(), allow_nan=False)


def test_parts_of_answers_are_fitted_and_judged_as_files_of_questions(
    engine: RagEngine, calibrated: Calibrated
) -> None:
    parts = [read_questions(path) for path in (calibrated.questions, calibrated.test)]
    observed = observe(engine, [*parts[0], *parts[1]], engine.default_options, lambda done, total: None)
    dev, test = np.split(np.arange(len(observed.right)), [len(parts[0])])
    found = fit_confidence(observed.of(dev), count_words(engine), ERROR_RATE)
    report = calibrated.report
    assert report.test is not None
    assert found.threshold == pytest.approx(report.model.threshold, abs=1e-3)
    assert found.cross_validated.summary() == pytest.approx(report.cross_validated.summary(), abs=1e-3)
    assert found.judge(observed.of(test)).summary() == pytest.approx(report.test.summary(), abs=1e-3)


def test_an_answer_has_the_confidence_of_the_model(engine: RagEngine, calibrated: Calibrated) -> None:
    model = calibrated.report.model
    answer = engine.generate(QUESTION)
    assert len(answer.hypotheses) == len(answer.texts) == len(answer.raw_texts) == 1
    two = engine.generate(QUESTION, num_return_sequences=2)  # the features compare two
    expected = model.probabilities(features(two, model.rarity))
    assert (answer.confidence, answer.answerability) == pytest.approx(tuple(map(float, expected)), abs=1e-6)
    assert two.confidence == pytest.approx(answer.confidence, abs=1e-6)
    assert ("low_confidence" in answer.flags) == (answer.confidence < model.threshold)
    unsure = engine.generate(UNANSWERABLE)
    assert unsure.answerability is not None
    assert answer.answerability is not None
    assert unsure.answerability < answer.answerability


def test_a_batch_and_prepared_questions_have_the_same_confidence(engine: RagEngine) -> None:
    alone = [engine.generate(question) for question in (QUESTION, UNANSWERABLE)]
    for together in (
        engine.generate([QUESTION, UNANSWERABLE]),
        engine.generate(engine.prepare([QUESTION, UNANSWERABLE])),
    ):
        assert [a.confidence for a in together] == pytest.approx([a.confidence for a in alone], abs=1e-4)
        assert [a.flags for a in together] == [a.flags for a in alone]


def low(engine: RagEngine, calibrated: Calibrated) -> Answer:
    """An answer with a low confidence."""
    questions = [question.question for question in read_questions(calibrated.questions)]
    return next(a for a in map(engine.generate, reversed(questions)) if "low_confidence" in a.flags)


def test_abstaining_gives_the_documents_alone(engine: RagEngine, calibrated: Calibrated) -> None:
    doubtful = low(engine, calibrated)
    answer = engine.generate(doubtful.question, abstain=True)
    assert (answer.text, answer.raw_text, answer.tokens, answer.citations) == ("", "", (), ())
    assert answer.flags == (*doubtful.flags, "abstained")
    assert [d.id for d in answer.documents] == [d.id for d in doubtful.documents]
    assert answer.confidence == pytest.approx(doubtful.confidence)
    content = answer.to_dict()
    told = json.dumps({name: content[name] for name in ("answer", "raw_answer", "tokens", "hypotheses")})
    assert doubtful.text not in told
    assert len(answer.notes) == len(answer.flags)
    with pytest.raises(InputError, match="withheld"):
        answer.plot()
    assert doubtful.abstain().flags == answer.abstain().flags == answer.flags
    sure = engine.generate(QUESTION)
    if "low_confidence" not in sure.flags:
        assert engine.generate(QUESTION, abstain=True).text == sure.text == "Reykjavik"


def test_other_options_have_no_confidence(engine: RagEngine) -> None:
    for options in ({"num_beams": 2}, {"n_docs": 3}, {"marginalize": "sequence"}, {"doc_pruning": 1e-3}):
        answer = engine.generate(QUESTION, **options)
        assert answer.confidence is answer.answerability is None
        assert "calibration_other_options" in answer.flags
        with pytest.raises(InputError, match=r"abstain is True, but .* other generation options"):
            engine.generate(QUESTION, abstain=True, **options)
    with engine.stream(QUESTION, num_beams=1) as stream:
        list(stream)
        assert "calibration_other_options" in stream.answer().flags


def test_answers_of_another_making_have_no_confidence(calibrated: Calibrated, tmp_path: Path) -> None:
    """The options are those of the calibration, but documents were left out, or the caller chose tokens."""
    index = copied(calibrated.index, tmp_path / "index")
    content = json.loads((index / CALIBRATION).read_text("utf-8"))
    content["options"]["num_beams"] = 1
    (index / CALIBRATION).write_text(json.dumps(content), "utf-8")

    def any_token(question: int, tokens: np.ndarray) -> range:
        return range(engine.bundle.manifest.generator.vocab_size)

    with RagEngine.load(BUNDLE, index=index, device="cpu", threads=1) as engine:
        assert engine.generate(QUESTION, num_beams=1).confidence is not None
        for settings in ({"adaptive_reading": True}, {"prefix_allowed_tokens_fn": any_token}):
            answer = engine.generate(QUESTION, num_beams=1, **settings)
            assert (answer.text, answer.confidence) == ("Reykjavik", None)
            assert "calibration_other_options" in answer.flags
            with pytest.raises(InputError, match=r"abstain is True, but .* other generation options"):
                engine.generate(QUESTION, num_beams=1, abstain=True, **settings)


def test_a_withheld_answer_is_recorded_and_replays_as_the_same(
    engine: RagEngine, calibrated: Calibrated
) -> None:
    doubtful = low(engine, calibrated)
    record = Record.of(engine, engine.generate(doubtful.question, abstain=True))
    assert record.text == doubtful.raw_text
    assert replay(engine, record).differences == ()


def test_own_documents_have_no_confidence(engine: RagEngine) -> None:
    own = [Document("Iceland", "Its capital is Reykjavik.", score=1.0)]
    answer = engine.generate(QUESTION, documents=own)
    assert answer.confidence is None
    assert not any(flag.startswith("calibration") for flag in answer.flags)
    assert "far_from_corpus" not in answer.flags
    with pytest.raises(InputError, match="no calibration"):
        engine.generate(QUESTION, documents=own, abstain=True)
    with pytest.raises(InputError, match="no confidence"):
        answer.abstain()


def test_a_changed_index_is_said_to_be_uncalibrated(calibrated: Calibrated, tmp_path: Path) -> None:
    index = copied(calibrated.index, tmp_path)
    passages = tmp_path / "more.jsonl"
    passages.write_text('{"id": "new", "title": "Ferncliff", "text": "Ferncliff has a mayor."}\n')
    with RagEngine.load(BUNDLE, index=calibrated.index, device="cpu", threads=1) as engine:
        before = engine.generate(QUESTION)
        add_passages(index, passages, bundle=BUNDLE, threads=1)
        assert (index / CALIBRATION).read_bytes() == (calibrated.index / CALIBRATION).read_bytes()
        engine.swap_index(index)
        stale = engine.generate(QUESTION)
        assert before.confidence is not None
        assert stale.confidence is None
        assert "calibration_stale" in stale.flags
        assert any("run ragengine calibrate again" in note for note in stale.notes)
        with pytest.raises(InputError, match="another state of bundle or index"):
            engine.generate(QUESTION, abstain=True)
        engine.swap_index(calibrated.index)
        assert engine.generate(QUESTION).confidence == pytest.approx(before.confidence)


def test_without_a_calibration_nothing_is_claimed(calibrated: Calibrated, tmp_path: Path) -> None:
    index = copied(calibrated.index, tmp_path)
    (index / CALIBRATION).unlink()
    with RagEngine.load(BUNDLE, index=index, device="cpu", threads=1) as engine:
        answer = engine.generate(QUESTION)
        assert answer.confidence is None
        assert not any(flag.startswith("calibration") for flag in answer.flags)
        with pytest.raises(InputError, match="run ragengine calibrate"):
            engine.generate(QUESTION, abstain=True)


def test_a_damaged_calibration_is_named(calibrated: Calibrated, tmp_path: Path) -> None:
    index = copied(calibrated.index, tmp_path)
    (index / CALIBRATION).write_text("{}")
    with pytest.raises(IndexFolderError, match=r"calibration\.json is not a ragengine-calibration"):
        RagEngine.load(BUNDLE, index=index, device="cpu", threads=1)


def test_an_evaluation_judges_the_confidence(engine: RagEngine, calibrated: Calibrated) -> None:
    found = evaluate(engine, calibrated.test, resamples=0)
    tested = calibrated.report.test
    assert found.confidence is not None
    assert tested is not None
    assert found.confidence.auroc_right == pytest.approx(tested.auroc_right, abs=0.02)
    assert found.confidence.answered == pytest.approx(tested.answered, abs=0.07)
    assert found.to_dict()["confidence"]["n"] == 32
    silent = evaluate(engine, calibrated.test, resamples=0, abstain=True)
    said = [one.prediction for one in silent.measured]
    assert [one.text == "" for one in said] == [one.low for one in said]
    assert silent.unanswerable is not None
    low_ones = [one.prediction.low for one in silent.measured if not one.question.answerable]
    assert silent.unanswerable.abstained == pytest.approx(np.mean(low_ones))


def test_too_little_is_refused_before_and_after_answering(calibrated: Calibrated, tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(calibrated.questions.read_text().splitlines()[:10]) + "\n")
    with pytest.raises(InputError, match="There are 10 questions; a calibration needs at least 50"):
        calibrate(BUNDLE, calibrated.index, few)
    for rate in (0, 1, "a", True):
        with pytest.raises(InputError, match="error_rate"):
            calibrate(BUNDLE, calibrated.index, calibrated.questions, error_rate=rate)
    with pytest.raises(InputError, match=r"written as \.png or \.svg"):
        calibrate(BUNDLE, calibrated.index, calibrated.questions, plot=tmp_path / "plot.gif")
    assert ConfidenceModel.read(calibrated.index) == calibrated.report.model


def test_the_curves_are_drawn(calibrated: Calibrated, tmp_path: Path) -> None:
    for name in ("curves.png", "curves.svg"):
        calibrated.report.plot(tmp_path / name)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    drawn = (tmp_path / "curves.svg").read_text()
    assert "<svg" in drawn
