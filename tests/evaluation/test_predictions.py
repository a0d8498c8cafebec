"""Kept answers are those of the same bundle, index and options, and of nothing else."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ragengine import RagEngine
from ragengine.errors import InputError, PassagesError
from ragengine.evaluation import Question, evaluate
from ragengine_bench.parity.pairs import Pair
from tests.support.questions import known_questions


class Counting:
    """How many questions an engine has been asked."""

    def __init__(self, engine: RagEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        generate = engine.generate

        def counted(questions: Any, **options: Any) -> Any:
            self.asked += questions
            return generate(questions, **options)

        monkeypatch.setattr(engine, "generate", counted)


@pytest.fixture(scope="module")
def asked(pair: Pair) -> list[Question]:
    return known_questions(pair)


def test_answers_are_computed_once(
    pair: Pair, asked: list[Question], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, folder = pair.engine, tmp_path / "kept"
    expected = evaluate(engine, asked, resamples=0)
    counting = Counting(engine, monkeypatch)
    first = evaluate(engine, asked[:2], resamples=0, predictions=folder)
    assert counting.asked == [one.question for one in asked[:2]]
    counting.asked.clear()
    second = evaluate(engine, [*asked, asked[0]], resamples=0, predictions=folder)
    assert counting.asked == [one.question for one in asked[2:]], "only what is new is answered"
    assert second.measured[:4] == expected.measured, "documents and probabilities to the last bit"
    assert second.measured[4] == first.measured[0]
    counting.asked.clear()
    assert evaluate(engine, asked, resamples=0, predictions=folder).figures == expected.figures
    assert counting.asked == []
    assert len(list(folder.iterdir())) == 1


def test_other_settings_have_other_answers(
    pair: Pair, asked: list[Question], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = pair.engine
    evaluate(engine, asked, resamples=0, predictions=tmp_path)
    counting = Counting(engine, monkeypatch)
    own = engine.default_options
    evaluate(engine, asked, resamples=0, predictions=tmp_path, num_beams=own.num_beams + 1)
    evaluate(engine, asked, resamples=0, predictions=tmp_path, n_docs=own.n_docs + 1)
    assert len(counting.asked) == 2 * len(asked)
    evaluate(engine, asked, resamples=0, predictions=tmp_path, closed_book=True)
    assert len(list(tmp_path.iterdir())) == 4
    with pytest.raises(InputError, match="sampled answers are not kept"):
        evaluate(engine, asked, predictions=tmp_path, do_sample=True)


def test_a_bundle_with_another_file_has_other_answers(
    pair: Pair, asked: list[Question], tmp_path: Path
) -> None:
    """Same place and options; that a prompt is made otherwise is enough."""
    bundle = shutil.copytree(pair.bundle, tmp_path / "bundle")
    index = pair.bundle.parent / "index"
    manifest = bundle / "manifest.json"
    answers = []
    for separator in (" // ", " ?? "):
        content = json.loads(manifest.read_text("utf-8"))
        content["rag"]["doc_sep"] = separator
        manifest.write_text(json.dumps(content), "utf-8")
        with RagEngine.load(bundle, index=index, threads=1) as engine:
            found = evaluate(engine, asked, resamples=0, predictions=tmp_path / "kept")
            assert found.measured == evaluate(engine, asked, resamples=0).measured
        answers.append(found)
    assert answers[0].measured != answers[1].measured
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_answers_before_an_error_are_kept(
    pair: Pair, asked: list[Question], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = pair.engine

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(engine, asked, resamples=0, batch_size=1, predictions=tmp_path, progress=stop)
    counting = Counting(engine, monkeypatch)
    evaluate(engine, asked, resamples=0, predictions=tmp_path)
    assert counting.asked == [one.question for one in asked[2:]]


def test_a_damaged_file_is_refused(pair: Pair, asked: list[Question], tmp_path: Path) -> None:
    evaluate(pair.engine, asked[:1], resamples=0, predictions=tmp_path)
    (path,) = tmp_path.iterdir()
    for damage in ("{", "[]", '{"question": "q"}'):
        path.write_text(damage)
        with pytest.raises(PassagesError, match=r"line 1 is no kept prediction.*remove the file"):
            evaluate(pair.engine, asked[:1], resamples=0, predictions=tmp_path)


def test_questions_whose_answers_are_not_known_have_retrieval_figures(
    pair: Pair, asked: list[Question]
) -> None:
    known = next(one for one in asked if one.passage_id)
    blind = dataclasses.replace(known, answers=(), answers_known=False)
    found = evaluate(pair.engine, [blind], resamples=0)
    right = evaluate(pair.engine, [known], resamples=0)
    assert (found.n, found.unanswerable, found.calibration) == (1, None, None)
    assert found.figures["exact_match"] is found.figures["recall@5"] is None
    for k in (1, 5):
        assert found.figures[f"passage_recall@{k}"] == right.figures[f"passage_recall@{k}"]
