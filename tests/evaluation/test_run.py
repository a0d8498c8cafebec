"""`evaluate` and `measure` on a small random model: what they count is what the engine answers."""

from typing import Any, get_args

import numpy as np
import pytest

from ragengine import Document, GenerationOptions, RagEngine
from ragengine.arrays import FloatArray
from ragengine.errors import InputError, OptionsError
from ragengine.evaluation import Metrics, Question, evaluate, measure, normalize_answer, report
from ragengine.evaluation.statistics import Resampling
from ragengine_bench.parity.pairs import Pair
from tests.support.questions import known_questions

QUICK = Resampling(resamples=50)


@pytest.fixture(scope="module")
def asked(pair: Pair) -> list[Question]:
    return known_questions(pair)


def test_evaluate_counts_what_the_engine_answers(pair: Pair, asked: list[Question]) -> None:
    seen: list[tuple[int, int | None]] = []
    found = evaluate(
        pair.engine, asked, batch_size=3, n_docs=5, resamples=20, progress=lambda *said: seen.append(said)
    )
    readable = sum(bool(normalize_answer(question.answers[0])) for question in asked[:2])
    assert found.n == 3
    assert found.figures["exact_match"] == pytest.approx(2 / 3)
    assert found.figures["f1"] == pytest.approx(readable / 3)
    assert found.figures["passage_recall@5"] == 1 / 2
    assert found.figures["passage_recall@1"] == 0
    assert found.figures["passage_precision@5"] == pytest.approx(1 / 10)
    assert [one.question for one in found.measured] == asked
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_gold_passages_that_the_index_does_not_have_are_named(pair: Pair, asked: list[Question]) -> None:
    found = evaluate(pair.engine, [*asked, *asked], resamples=0)
    assert found.missing_passages == ("none",)
    assert found.to_dict()["missing_passages"] == ["none"]
    several = Question("?", ("x",), passage_ids=("no", asked[0].passage_id or "", "none"))
    assert evaluate(pair.engine, [several], resamples=0).missing_passages == ("no", "none")
    assert "missing_passages" not in evaluate(pair.engine, asked[:2], resamples=0).to_dict()


def test_whose_metrics_is_the_callers_choice(pair: Pair, asked: list[Question]) -> None:
    found = {name: evaluate(pair.engine, asked, metrics=name, resamples=0) for name in get_args(Metrics)}
    assert found["squad"].figures == evaluate(pair.engine, asked, resamples=0).figures
    assert "rouge_l" not in found["squad"].figures
    assert "rouge_l" in found["kilt"].figures
    assert found["dpr"].figures["f1"] is None
    assert [one.to_dict()["metrics"] for one in found.values()] == ["squad", "kilt", "dpr"]
    with pytest.raises(InputError, match="different metrics, squad and kilt; evaluate both"):
        found["squad"].compare(found["kilt"])
    with pytest.raises(InputError, match="metrics is 'bleu'; it must be one of squad, kilt, dpr"):
        evaluate(pair.engine, asked, metrics="bleu")


def test_the_order_of_questions_does_not_matter(pair: Pair, asked: list[Question]) -> None:
    forward, backward = (evaluate(pair.engine, order, resamples=0) for order in (asked, asked[::-1]))
    assert forward.figures == pytest.approx(backward.figures)


def test_likelihood_is_the_engines_score(pair: Pair, asked: list[Question]) -> None:
    figures = measure(pair.engine, asked, likelihood=True, answer_prefix="", n_docs=3)
    for one in figures[:3]:
        expected = pair.engine.score(one.question.question, one.question.answers[0], n_docs=3)
        assert one.values["log_likelihood"] == pytest.approx(expected, abs=1e-3)
    assert figures[3].values == {}
    spaced = measure(pair.engine, asked[2:3], likelihood=True, answer_prefix=" ")[0]
    assert spaced.values["log_likelihood"] == pytest.approx(
        pair.engine.score(asked[2].question, " no such answer"), abs=1e-3
    )


def test_classification_takes_the_most_probable_label(pair: Pair) -> None:
    texts, labels = pair.questions(7, 3), ["yes", "no", "maybe"]
    shares = [pair.engine.classify(text, labels, n_docs=3) for text in texts]
    best = [max(share, key=share.__getitem__) for share in shares]
    wrong = next(label for label in labels if label != best[2])
    questions = [Question(text, (label,)) for text, label in zip(texts, [*best[:2], wrong], strict=True)]
    figures = measure(pair.engine, questions, task="classification", labels=labels, n_docs=3)
    assert [one.prediction.text for one in figures] == best
    assert [one.prediction.probability for one in figures] == pytest.approx(
        [share[label] for share, label in zip(shares, best, strict=True)], rel=1e-3
    )
    result = report(figures, task="classification", resampling=QUICK)
    assert result.figures["label_accuracy"] == pytest.approx(2 / 3)
    # among the labels of the file, where none are given
    few = measure(pair.engine, questions[:1], task="classification", n_docs=3)
    assert (few[0].prediction.text, few[0].prediction.probability) == (best[0], 1)


def test_generation_has_rouge_and_bleu(pair: Pair, asked: list[Question]) -> None:
    figures = measure(pair.engine, asked, task="generation", min_length=8, max_length=12)
    answers = [Question(one.question.question, (one.prediction.text,)) for one in figures]
    result = report(
        measure(pair.engine, answers, task="generation", min_length=8, max_length=12),
        task="generation",
        resampling=QUICK,
    )
    assert result.figures["bleu-1"] == pytest.approx(1)
    assert np.isfinite(result.figures["bleu"])
    assert result.calibration is None
    assert result.intervals["rouge_l"][1] <= 1


def test_an_answer_of_regular_expressions_has_no_words(pair: Pair, asked: list[Question]) -> None:
    figures = measure(pair.engine, [Question(asked[0].question, (".",), regex=True)], likelihood=True)
    result = report(figures, resampling=QUICK)
    assert (result.figures["exact_match"], result.figures["f1"]) == (1, None)
    assert "log_likelihood" not in result.figures


def test_k_is_at_most_n_docs(pair: Pair, asked: list[Question]) -> None:
    figures = measure(pair.engine, asked[:1], ks=(2, 3), n_docs=3)[0].values
    assert {name for name in figures if name.startswith("recall")} == {"recall@2", "recall@3", "recall@5"}
    with pytest.raises(InputError, match=r"k is 4 and must be 1 to n_docs, which is 3"):
        measure(pair.engine, asked[:1], ks=(4,), n_docs=3)


def test_options_are_checked_before_the_first_question(pair: Pair, asked: list[Question]) -> None:
    seen: list[int] = []
    for options in ({"n_docs": "five"}, {"n_docs": 0}, {"num_beams": 0}):
        with pytest.raises(OptionsError, match=rf"{next(iter(options))} is "):
            measure(pair.engine, asked, progress=lambda done, total: seen.append(done), **options)
    with pytest.raises(InputError, match="labels is"):
        measure(
            pair.engine,
            asked,
            task="classification",
            labels=["a", "a"],
            progress=lambda done, total: seen.append(done),
        )
    assert seen == []
    options = GenerationOptions.from_dict(pair.engine.default_options.to_dict() | {"n_docs": 2})
    assert "precision@2" in measure(pair.engine, asked[:1], options=options)[0].values


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "q"}, r"^task is 'q'; it must be one of qa, generation, classification\.$"),
        ({"labels": ["a"]}, r"^labels are given, which only task=\"classification\" uses; leave them out\.$"),
        (
            {"answer_prefix": " "},
            r"^answer_prefix is given, which only likelihood=True uses; leave it out\.$",
        ),
        ({"batch_size": 0}, r"^batch_size is 0; it must be a whole number of at least 1\.$"),
        ({"resamples": -1}, r"^resamples is -1; it must be a whole number of at least 0\.$"),
        ({"num_beam": 2}, r"'num_beam' is not a generation option; did you mean 'num_beams'\?$"),
    ],
)
def test_wrong_arguments_are_said_before_the_first_question(
    pair: Pair, asked: list[Question], arguments: dict[str, Any], message: str
) -> None:
    seen: list[int] = []
    with pytest.raises((InputError, OptionsError), match=message):
        evaluate(pair.engine, asked, progress=lambda done, total: seen.append(done), **arguments)
    assert seen == []


def test_options_come_whole_or_by_name(pair: Pair, asked: list[Question]) -> None:
    options = pair.engine.default_options.replace(n_docs=2)
    found = evaluate(pair.engine, asked[:1], options=options, max_length=3, resamples=0)
    assert "precision@2" in found.figures
    assert found.source is not None
    assert found.source.options == options.to_dict() | {"max_length": 3}
    assert found.source.questions is None


class OneDocument:
    """A search of its own, which finds the same document for every question."""

    def search(self, question_vectors: FloatArray, n_docs: int) -> list[list[Document]]:
        return [[Document(title="Quito", text="Quito is in Ecuador.", id="7", score=1.0)]] * len(
            question_vectors
        )


def test_a_search_of_ones_own_is_evaluated_and_has_no_index_folder(pair: Pair) -> None:
    asked = [Question("where is Quito?", ("Ecuador",), passage_id="7")]
    with RagEngine.load(pair.bundle, index=OneDocument(), device="cpu") as engine:
        found = evaluate(engine, asked, n_docs=3, resamples=0)
    assert found.source is not None
    assert (found.source.bundle, found.source.index) == (str(pair.bundle), None)
    assert (found.figures["recall@1"], found.figures["passage_precision@3"]) == (1, pytest.approx(1 / 3))
