"""Throughput of one engine: one caller, several callers at once, and batches, by turns.

    python -m ragengine_bench.studies.callers --bundle B --index I --questions Q.jsonl

Every way answers the same questions.  Beside the questions a second stand the milliseconds a question that
each stage took, of all callers together: with several at once they overlap, and a stage that waits for a
processor takes longer.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import click
from rich.table import Table

from ragengine import RagEngine
from ragengine.cli.console import SafeConsole
from ragengine.evaluation import read_questions
from ragengine_bench.peers.ragengine import BETWEEN, STAGES, timed_stages

CALLERS, BATCHES = (1, 2, 4, 8), (8, 32)
ONE = "one by one"
_SHOWN = ("encode question", "search", "tokenise documents", "encode documents", "decode", BETWEEN)


@dataclass
class Way:
    """A way to ask all questions: who calls, and what was measured, a number a turn."""

    name: str
    ask: Callable[[RagEngine, Sequence[str]], None]
    seconds: list[float] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)

    def measure(self, engine: RagEngine, questions: Sequence[str]) -> None:
        """Ask all questions once."""
        with timed_stages() as record:
            start = time.perf_counter()
            self.ask(engine, questions)
            self.seconds.append(time.perf_counter() - start)
        each = {name: sum(record.seconds.get(name, ())) / len(questions) for name in STAGES}
        self.stages.append(each | {BETWEEN: self.seconds[-1] / len(questions) - sum(each.values())})

    def cells(self, questions: int, baseline: "Way") -> Iterator[str]:
        """A row of the table."""
        yield self.name
        yield f"{questions / median(self.seconds):.2f}"
        yield f"{median(b / s for b, s in zip(baseline.seconds, self.seconds, strict=True)):.2f} x"
        for name in _SHOWN:
            each = median(turn[name] for turn in self.stages)
            yield f"{1e3 * each:.1f}" if each >= 0 else ""  # of stages that overlap nothing is left


def ways() -> list[Way]:
    """One by one first: the others are compared with it."""
    found = [Way(ONE if n == 1 else f"{n} callers", _callers(n)) for n in CALLERS]
    return found + [Way(f"batches of {n}", _batches(n)) for n in BATCHES]


def _callers(count: int) -> Callable[[RagEngine, Sequence[str]], None]:
    def ask(engine: RagEngine, questions: Sequence[str]) -> None:
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(engine.generate, questions))

    return ask


def _batches(size: int) -> Callable[[RagEngine, Sequence[str]], None]:
    def ask(engine: RagEngine, questions: Sequence[str]) -> None:
        for start in range(0, len(questions), size):
            engine.generate(questions[start : start + size])

    return ask


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), required=True)
@click.option("--index", type=click.Path(path_type=Path), required=True)
@click.option("--questions", type=click.Path(path_type=Path), required=True, help="JSONL, as for eval.")
@click.option(
    "--limit", type=click.IntRange(1), default=64, show_default=True, help="Only the first questions."
)
@click.option("--threads", type=click.IntRange(1), help="Of the engine.  [default: all cores]")
@click.option("--turns", type=click.IntRange(1), default=3, show_default=True)
def main(bundle: Path, index: Path, questions: Path, limit: int, threads: int | None, turns: int) -> None:
    """Ask the same questions in every way, by turns, and print the medians."""
    asked = [question.question for question in read_questions(questions)[:limit]]
    found = ways()
    with RagEngine.load(bundle, index=index, device="cpu", threads=threads) as engine:
        engine.generate(asked[:2])
        for _ in range(turns):
            for way in found:
                way.measure(engine, asked)
    table = Table(
        title=f"{len(asked)} questions, medians of {turns} turns; milliseconds a question", box=None
    )
    table.add_column("")
    for name in ("questions/s", f"against {ONE}", *_SHOWN):
        table.add_column(name, justify="right")
    for way in found:
        table.add_row(*way.cells(len(asked), found[0]))
    SafeConsole(width=200).print(table)


if __name__ == "__main__":
    main()
