"""`ragengine eval`: what it prints is what `ragengine.evaluate` returns, and what is wrong is said early."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import ragengine
from ragengine.cli.main import cli
from ragengine.errors import RagEngineError
from ragengine.evaluation import Question
from ragengine.installation import pip_install
from ragengine_bench.parity.pairs import Pair
from tests.support.commands import run
from tests.support.paths import WORLDFACTS
from tests.support.questions import known_questions


@pytest.fixture(scope="module")
def asked(pair: Pair) -> list[Question]:
    return known_questions(pair)


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


def test_python_returns_what_the_command_prints(pair: Pair, questions_file: Path) -> None:
    index = pair.bundle.parent / "index"
    options = ["--n-docs", "4", "--likelihood", "--k", "2", "--resamples", "20", "--resampling-seed", "3"]
    done = run("eval", pair.bundle, index, questions_file, "--json", *options, "--compare-set", "num_beams=3")
    assert done.returncode == 0, done.stderr
    same = {"ks": (2,), "likelihood": True, "resamples": 20, "resampling_seed": 3, "n_docs": 4}
    with ragengine.RagEngine.load(pair.bundle, index=index) as engine:
        first = ragengine.evaluate(engine, questions_file, **same)
        second = ragengine.evaluate(engine, str(questions_file), **same, num_beams=3)
    assert json.loads(done.stdout) == first.compare(second).to_dict()


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
    assert f"run {pip_install('eval')}." in done.stderr
    assert "Traceback" not in done.stderr


def test_json_has_the_figures_of_one_question(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "where is Quito?", "answers": ["nowhere"]}\n')
    result = run("eval", pair.bundle, pair.bundle.parent / "index", tmp_path / "q.jsonl", "--json")
    assert result.returncode == 0, result.stderr
    measures = json.loads(result.stdout)
    assert measures["n"] == 1
    assert {"exact_match", "f1", "recall@5"} <= set(measures)


def test_closed_book_and_all_checkpoints(pair: Pair, questions_file: Path, tmp_path: Path) -> None:
    """One table over the bundles of a folder, by the numbers in their names; answers are kept."""
    index, kept = pair.bundle.parent / "index", tmp_path / "kept"
    for step in (100, 20):
        shutil.copytree(pair.bundle, tmp_path / "run" / f"step-{step}" / "bundle")
    common = ("eval", pair.bundle, index, questions_file, "--resamples", "0", "--predictions", kept)
    done = run(*common, "--json", "--all-checkpoints", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["checkpoints"]
    names = [Path(one["measured"]["bundle"]).parent.name for one in found[1:]]
    assert names == ["step-20", "step-100"]
    assert len({one["exact_match"] for one in found}) == 1
    assert len(list(kept.iterdir())) == 1, "the same files are the same checkpoint, wherever they are"
    shown = run(*common, "--all-checkpoints", tmp_path / "run")
    assert shown.returncode == 0, shown.stderr
    assert "best exact match: " in shown.stdout
    assert sum("step-" in line and "%" in line for line in shown.stdout.splitlines()) == 2
    alone = run(*common, "--json", "--closed-book")
    assert alone.returncode == 0, alone.stderr
    result = json.loads(alone.stdout)
    assert result["compared"]["measured"]["closed_book"]
    assert "exact_match" in result["comparison"]
    assert "passage_recall@5" not in result["compared"]
    refused = run(*common, "--closed-book", "--compare", pair.bundle)
    assert refused.returncode == 2
    within = run(*common, "--json", "--all-checkpoints", pair.bundle.parent)
    bundles = [one["measured"]["bundle"] for one in json.loads(within.stdout)["checkpoints"]]
    assert bundles == [str(pair.bundle)], "it is in the folder, too"
    empty = run(*common, "--all-checkpoints", kept)
    assert (empty.returncode, "holds no bundles" in empty.stderr) == (1, True)


@pytest.mark.parametrize("flags", [("--adaptive-reading",), ("--doc-pruning", "0.05")])
def test_fewer_documents_are_read(flags: tuple[str, ...], tmp_path: Path) -> None:
    """Kept answers name the documents that were read, and are not those of other settings."""
    text = '{"question": "What is the capital of Iceland?", "answers": ["Reykjavik"]}\n'
    (tmp_path / "q.jsonl").write_text(text)
    folders = (WORLDFACTS / "bundle", WORLDFACTS / "index", tmp_path / "q.jsonl")
    common = ("--num-beams", "1", "--json", "--resamples", "0", "--threads", "1", "--verify", "size")
    done = run("eval", *folders, *common, *flags, "--predictions", tmp_path / "kept")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["exact_match"] == 1.0
    (kept,) = (tmp_path / "kept").glob("*.jsonl")
    assert 1 <= len(json.loads(kept.read_text("utf-8"))["prediction"]["documents"]) < 5
    plain = run("eval", *folders, *common, "--predictions", tmp_path / "kept")
    assert plain.returncode == 0, plain.stderr
    assert len(list((tmp_path / "kept").glob("*.jsonl"))) == 2, "answers of other settings were taken"


def test_adaptive_reading_is_refused_where_it_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "What?", "answers": ["a"]}\n')
    folders = (WORLDFACTS / "bundle", WORLDFACTS / "index", tmp_path / "q.jsonl")
    done = run("eval", *folders, "--adaptive-reading", "--num-beams", "2", "--verify", "size")
    assert done.returncode == 1
    assert "adaptive_reading cannot follow num_beams=2" in done.stderr
