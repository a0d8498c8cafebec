"""Fewer documents: what `doc_pruning` and adaptive reading leave out, and whether their bounds hold.

    python -m ragengine_bench.studies.fewer_documents --bundle B --index I --questions Q.jsonl

Every question is answered from all documents and from fewer, by turns.  With doc_pruning, the answer of all
documents is scored under both mixtures: for every token (RAG-Token), or every prefix (RAG-Sequence), the two
probabilities may differ by the prior that was left out and no more.  With adaptive reading the tokens must be
the same.  The exit code is 1 where one question breaks its bound.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

import click
import numpy as np
from rich.table import Table

from ragengine import Answer, RagEngine
from ragengine.arrays import FloatArray
from ragengine.cli.common import progress_bar
from ragengine.cli.console import SafeConsole
from ragengine.evaluation import Question, read_questions
from ragengine.evaluation.metrics import exact_match
from ragengine.generation.marginalization import Marginalize, logsumexp
from ragengine.pipeline.prepared import Asked
from ragengine.pipeline.stages import Wanted
from ragengine.runtime.cancellation import NEVER
from ragengine.runtime.progress import Report

ROUNDING = 1e-5  # of a probability that float32 computes in two ways
KINDS: dict[Marginalize, str] = {"token": "RAG-Token", "sequence": "RAG-Sequence"}
GREEDY = {"num_beams": 1, "marginalize": "token", "repetition_penalty": 1.0}
COLUMNS = (
    "questions", "documents read", "exact match", "same tokens", "bound met", "most beyond it", "a question",
    "faster by",
)  # fmt: skip


@dataclass
class Compared:
    """One way to read less beside reading everything, a number for each question."""

    name: str
    documents: list[int] = field(default_factory=list)
    all_documents: list[int] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    all_right: list[bool] = field(default_factory=list)
    same: list[bool] = field(default_factory=list)
    excess: list[float] = field(default_factory=list)  # the largest difference of probabilities - the bound
    seconds: list[float] = field(default_factory=list)
    all_seconds: list[float] = field(default_factory=list)

    def add(self, question: Question, whole: Answer, fewer: Answer, seconds: Sequence[float]) -> None:
        self.documents.append(len(fewer.documents))
        self.all_documents.append(len(whole.documents))
        for answer, right in ((whole, self.all_right), (fewer, self.right)):
            right.append(exact_match(answer.text, question.answers))
        tokens = (answer.hypotheses[0].token_ids.tolist() for answer in (whole, fewer))
        self.same.append(len({tuple(found) for found in tokens}) == 1)
        self.all_seconds.append(seconds[0])
        self.seconds.append(seconds[1])

    @property
    def broken(self) -> int:
        """How many questions exceed their bound by more than rounding."""
        return sum(excess > ROUNDING for excess in self.excess)

    def cells(self) -> tuple[str, ...]:
        asked = len(self.documents)
        ratio = median(whole / part for whole, part in zip(self.all_seconds, self.seconds, strict=True))
        return (
            self.name,
            str(asked),
            f"{fmean(self.all_documents):.2f} -> {fmean(self.documents):.2f}",
            f"{fmean(self.all_right):.2%} -> {fmean(self.right):.2%}",
            f"{sum(self.same)} of {asked}",
            f"{asked - self.broken} of {asked}",
            f"{max(self.excess):+.1e}",
            f"{median(self.all_seconds) * 1e3:.1f} -> {median(self.seconds) * 1e3:.1f} ms",
            f"{ratio:.2f} x",
        )


def pruned(engine: RagEngine, kind: Marginalize, threshold: float, questions: Iterable[Question]) -> Compared:
    """`doc_pruning`, with the bound of :func:`ragengine.pipeline.documents.select_documents`."""
    row = Compared(f"{KINDS[kind]}, doc_pruning={threshold:g}")
    for question in questions:
        common, less = {"marginalize": kind}, {"doc_pruning": threshold}
        whole, fewer, seconds = _by_turns(engine, question, common, less, len(row.same))
        row.add(question, whole, fewer, seconds)
        row.excess.append(excess(engine, question, whole, fewer, kind) if fewer.pruned else 0.0)
    return row


def adaptive(engine: RagEngine, questions: Iterable[Question]) -> Compared:
    """Adaptive reading, whose tokens are those of all documents: a question with others breaks it."""
    row = Compared("greedy RAG-Token, adaptive_reading")
    for question in questions:
        whole, fewer, seconds = _by_turns(engine, question, GREEDY, {"adaptive_reading": True}, len(row.same))
        row.add(question, whole, fewer, seconds)
        row.excess.append(0.0 if row.same[-1] else 1.0)
    return row


def excess(engine: RagEngine, question: Question, whole: Answer, fewer: Answer, kind: Marginalize) -> float:
    """By how much probabilities differ beyond the prior left out; at most 0 where the bound holds.

    Of the tokens that all documents gave, under both mixtures: RAG-Token p(y_t | x, y_<t) of each, and
    RAG-Sequence p(y_<=t | x) of each prefix.
    """
    tokens = whole.hypotheses[0].token_ids
    start = engine.default_options.decoder_start_token_id
    labels = np.array([[start, *tokens]])
    found = []
    for answer in (whole, fewer):
        ids, mask, scores = _inputs(engine, question, answer)
        per_document = engine.generator.forward(ids, mask, scores, labels, marginalize=kind)
        prior, given = per_document.log_prior[0], per_document.document_log_probs[0]  # [D], [D, T]
        found.append(_probabilities(prior, given, kind))
    return float(np.abs(found[0] - found[1]).max() - fewer.pruned_mass)


def _probabilities(log_prior: FloatArray, log_probs: FloatArray, kind: str) -> FloatArray:
    steps = log_probs if kind == "token" else np.cumsum(log_probs, axis=1)
    found: FloatArray = np.exp(logsumexp(log_prior[:, None] + steps, axis=0))
    return found


def _inputs(engine: RagEngine, question: Question, answer: Answer) -> tuple[Any, Any, FloatArray]:
    """What the generator read for an answer."""
    asked, documents = Asked.one(question.question), [list(answer.documents)]
    contexts = engine._stages.prompts(asked, Wanted(len(answer.documents), documents), NEVER).contexts
    scores = np.array([[document.score for document in answer.documents]], np.float32)
    return contexts.input_ids, contexts.attention_mask, scores


def _by_turns(
    engine: RagEngine,
    question: Question,
    common: dict[str, Any],
    less: dict[str, Any],
    number: int,
) -> tuple[Answer, Answer, list[float]]:
    """The answers from all documents and from fewer; every second question the other way round."""
    answers, seconds = {}, {}
    ways: tuple[dict[str, Any], ...] = ({}, less)
    for place in (0, 1) if number % 2 == 0 else (1, 0):
        start = time.perf_counter()
        answers[place] = engine.generate(question.question, **common, **ways[place])
        seconds[place] = time.perf_counter() - start
    return answers[0], answers[1], [seconds[0], seconds[1]]


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), required=True)
@click.option("--index", type=click.Path(path_type=Path), required=True)
@click.option("--questions", type=click.Path(path_type=Path), required=True, help="JSONL, as for eval.")
@click.option("--limit", type=click.IntRange(1), help="Only the first questions.")
@click.option("--threshold", type=click.FloatRange(0, 1), default=1e-3, show_default=True)
@click.option("--way", "ways", multiple=True, type=click.Choice([*KINDS, "adaptive"]), help="[default: all]")
@click.option("--threads", type=click.IntRange(1), help="[default: all cores]")
def main(
    bundle: Path, index: Path, questions: Path, limit: int | None, threshold: float, ways: tuple[Any, ...],
    threads: int | None,
) -> None:  # fmt: skip
    """Answer questions from all documents and from fewer, and check the bound of every one."""
    asked = read_questions(questions)[:limit]
    console, rows = SafeConsole(width=200), []
    with RagEngine.load(bundle, index=index, device="cpu", threads=threads) as engine:
        engine.generate(asked[0].question)
        for way in ways or (*KINDS, "adaptive"):
            with progress_bar(way) as report:
                given = _reported(asked, report)
                rows.append(
                    adaptive(engine, given) if way == "adaptive" else pruned(engine, way, threshold, given)
                )
            _print(console, rows[-1:])
    if len(rows) > 1:
        _print(console, rows)
    if broken := sum(row.broken for row in rows):
        raise click.ClickException(f"{broken} questions break their bound.")


def _reported(questions: Sequence[Question], report: Report) -> Iterable[Question]:
    for number, question in enumerate(questions):
        report(number, len(questions))
        yield question


def _print(console: SafeConsole, rows: Sequence[Compared]) -> None:
    table = Table(title="all documents -> fewer", box=None)
    table.add_column("")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row.cells())
    console.print(table)


if __name__ == "__main__":
    main()
