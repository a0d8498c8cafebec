"""Build, train and measure everything: `python train.py`.

    corpus.py    -> data/                 passages and questions
    prepare.py   -> start/                tokenizers and the models to start from
    augment.py   -> data/                 training examples with changed facts
    ragengine train recipe.toml -> run/   encoders, generator, joint tuning; an ordinary RAG checkpoint
    release.py   -> checkpoint/           the same with rounded weights
    ragengine export, index build -> release/bundle, release/index
    ragengine eval -> release/eval/*.json
    tables.py    -> release/tables.md     the tables of README.md

A stopped run goes on: a finished step is not run again. After a change, `--from STEP` runs that step and all
after it (`ragengine train` keeps the stages that the change does not affect, or says which must be made
again), `--fresh` runs everything. `release/seconds.json` has the seconds of every step; of a step that was
stopped those since it went on.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

import augment
import corpus
import prepare
import release
import tables
from common import read_json, write_json

HERE = Path(__file__).parent
DATA, START, RUN, CHECKPOINT = HERE / "data", HERE / "start", HERE / "run", HERE / "checkpoint"
RELEASE = HERE / "release"
BUNDLE, INDEX, FIGURES, SECONDS = (RELEASE / name for name in ("bundle", "index", "eval", "seconds.json"))
#: FAISS's flat index of float16 vectors: exact for vectors that are stored as float16, at half the size.
FACTORY = "SQfp16"


def ragengine(*arguments: object) -> str:
    """Run a command of ragengine and return what it printed."""
    command = [sys.executable, "-c", "from ragengine.cli.main import main; main()", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@dataclass
class Steps:
    """Runs the steps that are not finished."""

    finished: dict[str, float] = field(default_factory=dict)

    def run(self, name: str, job: Callable[[], object]) -> None:
        """Run a step that is not finished, and note its seconds."""
        if name in self.finished:
            click.echo(f"{name}: finished before")
            return
        started = time.perf_counter()
        job()
        self.finished[name] = round(time.perf_counter() - started, 1)
        write_json(SECONDS, self.finished)
        click.echo(f"{name}: {self.finished[name]:.0f} s")


def train() -> None:
    """Run `ragengine train`, which continues an earlier run and refuses results of other data."""
    ragengine("train", HERE / "recipe.toml")


def export(checkpoint: Path, bundle: Path, index: Path, precision: str = "fp32") -> None:
    """Bundle and index of the shipped passages."""
    encoder = ("--context-encoder", checkpoint / "context_encoder")
    ragengine("export", checkpoint, bundle, *encoder, "--precision", precision, "--force")
    passages, options = DATA / "shipped_passages.tsv", ("--bundle", bundle, "--factory", FACTORY, "--force")
    ragengine("index", "build", passages, index, *options)


def evaluate(name: str, questions: Sequence[str], *options: object, bundle: str = "") -> None:
    """Write `ragengine eval`'s figures to release/eval/NAME.json; ``bundle`` is one of run/."""
    folders = (RUN / f"bundle_{bundle}", RUN / f"index_{bundle}") if bundle else (BUNDLE, INDEX)
    given = FIGURES / f"{name}.jsonl"
    given.parent.mkdir(parents=True, exist_ok=True)
    given.write_text("".join((DATA / f"{file}.jsonl").read_text("utf-8") for file in questions), "utf-8")
    (FIGURES / f"{name}.json").write_text(ragengine("eval", *folders, given, "--json", *options), "utf-8")
    given.unlink()


def measure() -> None:
    """Evaluate RAG-Token and RAG-Sequence, the questions reported apart, unrounded weights, int8."""
    evaluate("token", ("questions", "questions_unanswerable"))
    evaluate("sequence", ("questions",), "--marginalize", "sequence")
    for way in ("token", "sequence"):
        evaluate(f"two_documents_{way}", ("questions_two_documents",), "--marginalize", way)
    for name, source, precision in (("unrounded", RUN / "checkpoint", "fp32"), ("int8", CHECKPOINT, "int8")):
        export(source, RUN / f"bundle_{name}", RUN / f"index_{name}", precision)
        evaluate(name, ("questions",), bundle=name)


def gather() -> None:
    """Write all figures to one file, the tables of README.md, and the loss curves."""
    figures = {path.stem: read_json(path) for path in sorted(FIGURES.glob("*.json"))}
    write_json(RELEASE / "figures.json", figures)
    shutil.copy(RUN / "loss.png", RELEASE / "loss.png")
    (RELEASE / "tables.md").write_text(tables.all_tables(RUN, RELEASE), encoding="utf-8")


JOBS: dict[str, Callable[[], object]] = {
    "corpus": lambda: corpus.build(DATA),
    "prepare": lambda: prepare.prepare(DATA, START),
    "augment": lambda: augment.augment(DATA),
    "train": train,
    "release": lambda: release.release(RUN / "checkpoint", CHECKPOINT),
    "export": lambda: export(CHECKPOINT, BUNDLE, INDEX),
    "measure": measure,
}


@click.command(help=__doc__)
@click.option("--fresh", is_flag=True, help="Remove what an earlier run left.")
@click.option("--from", "start", type=click.Choice(list(JOBS)), help="Run this step and all after it again.")
def main(fresh: bool, start: str | None) -> None:
    """Run every step."""
    if fresh:
        for folder in (DATA, START, RUN, CHECKPOINT, RELEASE):
            shutil.rmtree(folder, ignore_errors=True)
    finished = read_json(SECONDS) if SECONDS.exists() else {}
    kept = list(JOBS)[: list(JOBS).index(start) if start else None]
    steps = Steps({name: finished[name] for name in kept if name in finished})
    for name, job in JOBS.items():
        steps.run(name, job)
    gather()
    click.echo((RELEASE / "tables.md").read_text("utf-8"))


if __name__ == "__main__":
    main()
