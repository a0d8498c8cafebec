"""Is joint decoding of RAG-Sequence as good as thorough, and faster?

    python -m ragengine_bench.studies.joint_decoding

Every question is searched both ways, taking turns on the same documents; the likelihood of an answer is
log p(y | x) of RAG-Sequence, whichever search found it.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

import click
import numpy as np
from rich.table import Table

from ragengine import GenerationOptions, Generator, RagEngine
from ragengine.cli.console import SafeConsole
from ragengine.evaluation import read_questions
from ragengine.results import Hypothesis
from ragengine_bench.checkpoints.peaked_checkpoint import VOCABULARY, write_peaked_checkpoint
from ragengine_export import export_checkpoint

SAME = 1e-4  # nats; two float32 sums of the same answer differ by less
Search = Callable[[GenerationOptions], Hypothesis]


@dataclass
class Comparison:
    """The results on one set of questions, one number for each question."""

    name: str
    differences: list[float] = field(default_factory=list)  # log p of joint's answer - of thorough's, in nats
    lengths: list[int] = field(default_factory=list)  # tokens of thorough's answer
    thorough_seconds: list[float] = field(default_factory=list)
    joint_seconds: list[float] = field(default_factory=list)

    def add(self, search: Search, options: GenerationOptions, joint_beams: int) -> None:
        """Search a question both ways."""
        found, seconds = {}, {}
        ways: tuple[tuple[Literal["thorough", "joint"], int], ...]
        ways = ("thorough", options.num_beams), ("joint", joint_beams)
        for name, beams in ways:
            chosen = options.replace(marginalize="sequence", search=name, num_beams=beams)
            start = time.perf_counter()
            found[name] = search(chosen)
            seconds[name] = time.perf_counter() - start
        self.differences.append(found["joint"].log_prob - found["thorough"].log_prob)
        self.lengths.append(len(found["thorough"].token_ids))
        self.thorough_seconds.append(seconds["thorough"])
        self.joint_seconds.append(seconds["joint"])

    def row(self) -> tuple[str, ...]:
        differences = np.array(self.differences)
        above, below = differences[differences > SAME], differences[differences < -SAME]
        ratios = [t / j for t, j in zip(self.thorough_seconds, self.joint_seconds, strict=True)]
        return (
            self.name,
            str(len(differences)),
            f"{fmean(self.lengths):.1f}",
            _share(above, differences),
            f"{1 - (len(above) + len(below)) / len(differences):.1%}",
            _share(below, differences),
            f"{differences.mean():+.4f}",
            f"{median(self.thorough_seconds) * 1000:.1f} ms",
            f"{median(self.joint_seconds) * 1000:.1f} ms",
            f"{median(ratios):.2f} x",
        )


def _share(part: np.ndarray[Any, Any], whole: np.ndarray[Any, Any]) -> str:
    mean = f" ({part.mean():+.2f})" if len(part) else ""
    return f"{len(part) / len(whole):.1%}{mean}"


def print_table(console: SafeConsole, comparisons: list[Comparison]) -> None:
    """Print a row for each set of questions; in brackets the mean difference of log p in nats."""
    table = Table(title="joint decoding beside thorough decoding (RAG-Sequence)", box=None)
    table.add_column("")
    for name in (
        "questions", "tokens", "joint above", "equal", "joint below", "mean difference", "thorough", "joint",
        "faster by",
    ):  # fmt: skip
        table.add_column(name, justify="right")
    for comparison in comparisons:
        table.add_row(*comparison.row())
    console.print(table)


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), help="Measure questions on this model ...")
@click.option("--index", type=click.Path(path_type=Path), help="... with this index ...")
@click.option("--questions", type=click.Path(path_type=Path), help="... of this file.")
@click.option("--limit", type=click.IntRange(1), help="Only the first questions of it.")
@click.option(
    "--random", "checkpoints", type=click.IntRange(0), default=200, show_default=True, help="Checkpoints."
)
@click.option("--num-beams", type=click.IntRange(1), default=4, show_default=True)
@click.option("--joint-beams", type=click.IntRange(1), help="Of joint decoding [default: --num-beams].")
@click.option("--length-penalty", type=float, default=1.0, show_default=True)
@click.option("--long", "long_tokens", type=click.IntRange(2), default=60, show_default=True, help="Forced.")
@click.option("--threads", type=click.IntRange(1), help="[default: all cores]")
def main(
    bundle: Path | None, index: Path | None, questions: Path | None, limit: int | None, checkpoints: int,
    num_beams: int, joint_beams: int | None, length_penalty: float, long_tokens: int, threads: int | None,
) -> None:  # fmt: skip
    """Measure how often joint decoding finds a more, an equally, or a less likely answer than thorough."""
    parts = [bundle, index, questions]
    if any(parts) and not all(parts):
        raise click.UsageError("--bundle, --index and --questions go together")
    console, progress = SafeConsole(width=160), SafeConsole(stderr=True)
    changes: dict[str, Any] = {"num_beams": num_beams, "length_penalty": length_penalty}
    long = {"max_length": 1 + long_tokens, "min_length": 1 + long_tokens}
    comparisons = []
    if bundle and index and questions:
        texts = [question.question for question in read_questions(questions)[:limit]]
        progress.print(f"{len(texts)} questions")
        comparisons += _questions(bundle, index, texts, threads, changes, long, joint_beams or num_beams)
    if checkpoints:
        progress.print(f"{checkpoints} random checkpoints")
        comparisons += _random(checkpoints, threads, changes, long, joint_beams or num_beams)
    print_table(console, comparisons)


def _questions(
    bundle: Path,
    index: Path,
    texts: list[str],
    threads: int | None,
    changes: dict[str, Any],
    long: dict[str, Any],
    joint_beams: int,
) -> list[Comparison]:
    """Retrieval is done once a question and not timed; long outputs are free-running, without an end."""
    short_answers, long_answers = Comparison("questions"), Comparison("questions, long outputs")
    with RagEngine.load(bundle, index=index, device="cpu", threads=threads) as engine:
        options = engine.default_options.replace(**changes)
        for number, question in enumerate(texts):
            documents = engine.retrieve(question)

            def search(options: GenerationOptions, q: str = question, d: Any = documents) -> Hypothesis:
                return engine.generate(q, documents=d, options=options).hypotheses[0]

            if number == 0:
                Comparison("warm-up").add(search, options, joint_beams)
            short_answers.add(search, options, joint_beams)
            long_answers.add(search, options.replace(**long), joint_beams)
    return [short_answers, long_answers]


def _random(
    count: int, threads: int | None, changes: dict[str, Any], long: dict[str, Any], joint_beams: int
) -> list[Comparison]:
    """Two questions of five random documents on every checkpoint."""
    short_answers, long_answers = Comparison("random checkpoints"), Comparison("random, long outputs")
    options = GenerationOptions(eos_token_id=2, max_length=24, **changes)
    for generator, seed in _generators(count, threads):
        rng = np.random.default_rng(seed)
        for number in range(2):
            ids = rng.integers(4, VOCABULARY, (1, 5, 24))
            mask, scores = np.ones_like(ids), rng.normal(scale=1.5, size=(1, 5)).astype(np.float32)

            def search(
                options: GenerationOptions,
                given: Any = (ids, mask, scores),
                generator: Generator = generator,
            ) -> Hypothesis:
                ids, mask, scores = given
                return generator.generate(ids, mask, scores, options)[0][0]

            if number == 0:
                Comparison("warm-up").add(search, options, joint_beams)
            short_answers.add(search, options, joint_beams)
            long_answers.add(search, options.replace(**long), joint_beams)
    return [short_answers, long_answers]


def _generators(count: int, threads: int | None) -> Iterator[tuple[Generator, int]]:
    for seed in range(count):
        with tempfile.TemporaryDirectory() as folder:
            checkpoint, bundle = Path(folder) / "checkpoint", Path(folder) / "bundle"
            write_peaked_checkpoint(checkpoint, seed)
            export_checkpoint(checkpoint, bundle, check=False)
            yield Generator.load(bundle, "cpu", threads), seed


if __name__ == "__main__":
    main()
