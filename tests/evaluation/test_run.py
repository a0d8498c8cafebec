"""`measure`, `report` and the command on a small random model: what they count is what the engine says."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ragengine import GenerationOptions
from ragengine.cli.main import cli
from ragengine.errors import InputError, OptionsError, RagEngineError
from ragengine.evaluation import Question, evaluate, measure, normalize_answer, report
from ragengine.evaluation.statistics import Resampling
from ragengine_bench.parity.pairs import Pair
from tests.cli.test_main import run
from tests.support.paths import WORLDFACTS

QUICK = Resampling(resamples=50)


@pytest.fixture(scope="module")
def asked(pair: Pair) -> list[Question]:
    """Two questions with the answers that the model gives, one that it has wrong, one without an answer."""
    texts = pair.questions(0, 4)
    answers = [pair.engine.generate(text, n_docs=5) for text in texts]
    return [
        Question(texts[0], (answers[0].text, "other"), passage_id=answers[0].documents[1].id, type="t"),
        Question(texts[1], (answers[1].text,), type="t", kind="k"),
        Question(texts[2], ("no such answer",), passage_id="none", type="u"),
        Question(texts[3], ()),
    ]


def test_evaluate_counts_what_the_engine_answers(pair: Pair, asked: list[Question]) -> None:
    result = evaluate(pair.engine, asked, batch_size=3, n_docs=5)
    readable = sum(bool(normalize_answer(question.answers[0])) for question in asked[:2])
    assert result["n"] == 3
    assert result["exact_match"] == pytest.approx(2 / 3)
    assert result["f1"] == pytest.approx(readable / 3)
    assert result["passage_recall@5"] == 1 / 2
    assert result["passage_recall@1"] == 0
    assert result["passage_precision@5"] == pytest.approx(1 / 10)


def test_a_report_has_groups_intervals_and_the_unanswerable_apart(pair: Pair, asked: list[Question]) -> None:
    progress: list[int] = []
    figures = measure(pair.engine, asked, progress=progress.append, n_docs=5)
    result = report(figures, resampling=QUICK)
    assert sum(progress) == 4
    assert result["types"]["t"]["n"] == 2
    assert result["types"]["t"]["exact_match"] == 1
    assert result["types"]["u"]["exact_match"] == 0
    assert result["kinds"] == {"k": result["kinds"]["k"]}
    low, high = result["intervals"]["exact_match"]
    assert low <= result["exact_match"] <= high
    assert result["unanswerable"]["n"] == 1
    probability = math.exp(pair.engine.generate(asked[3].question, n_docs=5).log_prob)
    assert result["unanswerable"]["probability"] == pytest.approx(probability, rel=1e-4)
    assert sum(one["n"] for one in result["calibration"]["bins"]) == 3
    assert json.loads(json.dumps(result, allow_nan=False)) == result

    none = report(figures[3:], resampling=QUICK)
    assert (none["n"], none["exact_match"], none["recall@5"]) == (0, None, None)
    assert "intervals" not in report(figures, resampling=Resampling(resamples=0))


def test_the_order_of_questions_does_not_matter(pair: Pair, asked: list[Question]) -> None:
    forward, backward = evaluate(pair.engine, asked), evaluate(pair.engine, asked[::-1])
    assert forward == pytest.approx(backward)


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
    assert result["label_accuracy"] == pytest.approx(2 / 3)
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
    assert result["bleu-1"] == pytest.approx(1)
    assert np.isfinite(result["bleu"])
    assert "calibration" not in result
    assert result["intervals"]["rouge_l"][1] <= 1


def test_an_answer_of_regular_expressions_has_no_words(pair: Pair, asked: list[Question]) -> None:
    figures = measure(pair.engine, [Question(asked[0].question, (".",), regex=True)], likelihood=True)
    result = report(figures, resampling=QUICK)
    assert (result["exact_match"], result["f1"]) == (1, None)
    assert "log_likelihood" not in result


def test_k_is_at_most_n_docs(pair: Pair, asked: list[Question]) -> None:
    figures = measure(pair.engine, asked[:1], ks=(2, 3), n_docs=3)[0].values
    assert {name for name in figures if name.startswith("recall")} == {"recall@2", "recall@3", "recall@5"}
    with pytest.raises(InputError, match=r"k is 4 and must be 1 to n_docs, which is 3"):
        measure(pair.engine, asked[:1], ks=(4,), n_docs=3)


@pytest.fixture
def questions_file(asked: list[Question], tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    lines = [json.dumps({"question": q.question, "answers": q.answers, "type": q.type}) for q in asked]
    path.write_text("\n".join(lines), "utf-8")
    return path


def test_the_command_compares_two_sets_of_options(pair: Pair, questions_file: Path) -> None:
    index = pair.bundle.parent / "index"
    common = ("eval", pair.bundle, index, questions_file, "--resamples", "20")
    done = run(*common, "--json", "--n-docs", "5", "--compare-set", "max_length=2", "--likelihood")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["n"], result["unanswerable"]["n"]) == (3, 1)
    assert result["comparison"]["exact_match"]["first"] == pytest.approx(2 / 3)
    assert result["comparison"]["exact_match"]["second"] == result["compared"]["exact_match"]
    assert result["comparison"]["log_likelihood"]["p"] <= 1
    shown = run(*common, "--compare", pair.bundle)
    assert shown.returncode == 0, shown.stderr
    assert "exact_match" in shown.stdout
    assert "mcnemar" in shown.stdout
    assert "1 questions without an answer" in shown.stdout


def test_options_are_checked_before_the_first_question(pair: Pair, asked: list[Question]) -> None:
    progress: list[int] = []
    for options in ({"n_docs": "five"}, {"n_docs": 0}, {"num_beams": 0}):
        with pytest.raises(OptionsError, match=rf"{next(iter(options))} is "):
            measure(pair.engine, asked, progress=progress.append, **options)
    with pytest.raises(InputError, match="labels is"):
        measure(pair.engine, asked, task="classification", labels=["a", "a"], progress=progress.append)
    assert progress == []
    options = GenerationOptions.from_dict(pair.engine.default_options.to_dict() | {"n_docs": 2})
    assert "precision@2" in measure(pair.engine, asked[:1], options=options)[0].values


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--set n_docs=five", "n_docs is 'five', it must be a whole number"),
        ("--set batch_size=0 --set progress=1 --set ks=3 --set task=qa", "'ks' is not a generation option"),
        ("--compare-set batch_size=0", "'batch_size' is not a generation option"),
        ("--n-docs 3 --compare-set n_docs=2 --k 3", "k is 3 and must be 1 to n_docs, which is 2"),
        ("--compare-set max_length=9999", "max_length is 9999, the model has"),
        ("--compare nowhere", "nowhere is not a folder"),
        (f"--compare-index {WORLDFACTS / 'index'}", "was built with the encoder"),
        (f"--compare {WORLDFACTS / 'bundle'}", "was built with the encoder"),
    ],
)
def test_what_a_system_cannot_do_is_said_before_any_is_loaded(
    pair: Pair, questions_file: Path, options: str, message: str
) -> None:
    """Without a GPU no system can be loaded for one, which would be said first if it was tried."""
    files = [str(path) for path in (pair.bundle, pair.bundle.parent / "index", questions_file)]
    common = ["eval", *files, "--device", "cuda"]
    with pytest.raises(RagEngineError, match=message):
        CliRunner().invoke(cli, [*common, *options.split()], catch_exceptions=False)


@pytest.mark.parametrize(
    ("option", "needed"), [("--label", "--task classification"), ("--answer-prefix", "--likelihood")]
)
def test_an_option_that_would_be_ignored_is_an_error(option: str, needed: str) -> None:
    done = run("eval", "bundle", "index", "questions", option, "yes")
    assert done.returncode == 2
    assert f"Error: {option} is for {needed} alone." in done.stderr


@pytest.mark.parametrize("package", ["sacrebleu", "rouge_score"])
def test_a_missing_package_is_named_with_its_extra(pair: Pair, questions_file: Path, package: str) -> None:
    done = run(
        "eval", pair.bundle, pair.bundle.parent / "index", questions_file, "--task", "generation",
        blocked=(package,),
    )  # fmt: skip
    assert done.returncode == 1
    assert f"needs the package {package}" in done.stderr
    assert 'pip install "ragengine[eval]"' in done.stderr
    assert "Traceback" not in done.stderr
