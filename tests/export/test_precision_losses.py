"""What rounding each part costs is what evaluation says of bundles in which that part alone is rounded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragengine import RagEngine, evaluate
from ragengine.errors import ExportError
from ragengine_bench.parity.pairs import Pair
from ragengine_export import export_checkpoint
from ragengine_export.choices import PARTS
from tests.support.commands import run


@pytest.fixture(scope="module")
def questions(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some whose answers are the model's own, and one whose answer is not."""
    asked = pair.questions(0, 3)
    answers = [pair.engine.generate(question).texts[0] for question in asked]
    file = tmp_path_factory.mktemp("losses") / "questions.jsonl"
    lines = [
        {"question": q, "answers": [a or "x"]} for q, a in zip(asked, [*answers[:2], "another"], strict=True)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return file


def test_each_part_is_rounded_alone(pair: Pair, questions: Path, tmp_path: Path) -> None:
    index = pair.engine.retriever.index.path
    source = pair.checkpoint.source
    report = export_checkpoint(
        source, tmp_path / "int8", "int8", check=False, questions=questions, index=index
    )
    losses = {loss.part: loss for loss in report.losses}
    assert list(losses) == ["none", *PARTS, "all"]
    likelihoods = [loss.likelihood for loss in report.losses]
    assert len(set(likelihoods)) == len(likelihoods)  # every part changes it
    for name, bundle, added in [("none", pair.bundle, 1e-4), ("all", report.path, 0)]:
        with RagEngine.load(bundle, index=index, device="cpu") as engine:
            figures = evaluate(engine, questions, likelihood=True, resamples=0).figures
        assert losses[name].likelihood == pytest.approx(figures["log_likelihood"], abs=added)
        assert losses[name].exact_match == figures["exact_match"]


def test_a_precision_that_rounds_nothing_has_no_losses(pair: Pair, questions: Path, tmp_path: Path) -> None:
    source, index = pair.checkpoint.source, pair.engine.retriever.index.path
    with pytest.raises(ExportError, match="fp16 rounds no part; measure the losses of int8 or int4"):
        export_checkpoint(source, tmp_path / "b", "fp16", questions=questions, index=index)
    with pytest.raises(ExportError, match="need both: questions with answers, and an index"):
        export_checkpoint(source, tmp_path / "b", "int8", questions=questions)
    assert not (tmp_path / "b").exists()


def test_the_command_prints_a_row_for_each_part(pair: Pair, questions: Path, tmp_path: Path) -> None:
    index, source = pair.engine.retriever.index.path, pair.checkpoint.source
    options = ("--precision", "int8", "--no-check", "--losses", questions, index)
    done = run("export", source, tmp_path / "bundle", *options)
    assert done.returncode == 0, done.stderr
    rows = [line.split("  ")[0].strip() for line in done.stdout.splitlines()]
    assert [row for row in rows if row in ("none", *PARTS, "all")] == ["none", *PARTS, "all"]
