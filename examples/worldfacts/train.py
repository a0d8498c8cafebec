"""From nothing to a measured model: `python train.py`.

    corpus.py    -> data/                 passages and questions
    prepare.py   -> start/                tokenizers and the models to start from
    augment.py   -> data/                 training examples with other facts put in
    ragengine train recipe.toml -> run/   encoders, generator, joint tuning; an ordinary RAG checkpoint
    release.py   -> checkpoint/           the same with rounded weights
    ragengine export, index build -> release/bundle, release/index
    ragengine eval -> release/eval/*.json

A step whose result is there is not run again unless `--fresh` is given; a stopped training goes on.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
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
BUNDLE, INDEX, FIGURES = RELEASE / "bundle", RELEASE / "index", RELEASE / "eval"
#: FAISS's flat index of float16 vectors: exact for vectors that are stored as float16, at half the size.
FACTORY = "SQfp16"
QUESTION_FILES = ("questions", "questions_two_documents", "questions_unanswerable")


def ragengine(*arguments: object) -> str:
    """Run a command of ragengine; what it printed."""
    command = [sys.executable, "-c", "from ragengine.cli.main import main; main()", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def step(name: str, result: Path, run: Callable[[], object]) -> None:
    """Run a step unless its result is there."""
    if result.exists():
        click.echo(f"{name}: {result.relative_to(HERE)} is there")
        return
    started = time.perf_counter()
    run()
    click.echo(f"{name}: {time.perf_counter() - started:.0f} s")


def export(checkpoint: Path, bundle: Path, index: Path, precision: str = "fp32") -> None:
    """Bundle and index of the shipped passages."""
    context_encoder = checkpoint / "context_encoder"
    ragengine("export", checkpoint, bundle, "--context-encoder", context_encoder, "--precision", precision)
    ragengine(
        "index", "build", DATA / "shipped_passages.tsv", index, "--bundle", bundle, "--factory", FACTORY
    )


def evaluate(name: str, bundle: Path, index: Path, questions: str, options: Sequence[object] = ()) -> None:
    """Write `ragengine eval`'s figures to release/eval/NAME.json."""
    arguments = (bundle, index, DATA / f"{questions}.jsonl", "--json", *options)
    step(f"eval {name}", FIGURES / f"{name}.json", lambda: _keep(FIGURES / f"{name}.json", arguments))


def _keep(path: Path, arguments: Sequence[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = ragengine("eval", *arguments)
    path.write_text(text, encoding="utf-8")


def measure() -> None:
    """RAG-Token and RAG-Sequence, unrounded weights, int8, and the questions that are reported apart."""
    for way in ("token", "sequence"):
        evaluate(way, BUNDLE, INDEX, "questions", ("--marginalize", way))
    for questions in QUESTION_FILES[1:]:
        evaluate(questions, BUNDLE, INDEX, questions)
    for name, source, precision in (("unrounded", RUN / "checkpoint", "fp32"), ("int8", CHECKPOINT, "int8")):
        bundle, index = RUN / f"bundle_{name}", RUN / f"index_{name}"
        step(f"export {name}", index / "manifest.json", partial(export, source, bundle, index, precision))
        evaluate(name, bundle, index, "questions")


def gather() -> None:
    """All figures in one file, and the tables of README.md."""
    figures = {path.stem: read_json(path) for path in sorted(FIGURES.glob("*.json"))}
    write_json(RELEASE / "figures.json", figures)
    tables.print_tables(RUN, RELEASE)


@click.command(help=__doc__)
@click.option("--fresh", is_flag=True, help="Throw away what an earlier run left.")
def main(fresh: bool) -> None:
    """Run every step."""
    if fresh:
        for folder in (DATA, START, RUN, CHECKPOINT, RELEASE):
            shutil.rmtree(folder, ignore_errors=True)
    step("corpus", DATA / "questions_unanswerable.jsonl", lambda: corpus.build(DATA))
    step("prepare", START / "generator" / "tokenizer.json", lambda: prepare.prepare(DATA, START))
    step("augment", DATA / "airports.jsonl", lambda: augment.augment(DATA))
    step("train", RUN / "checkpoint" / "config.json", lambda: ragengine("train", HERE / "recipe.toml"))
    step("release", CHECKPOINT / "config.json", lambda: release.release(RUN / "checkpoint", CHECKPOINT))
    step("export", INDEX / "manifest.json", lambda: export(CHECKPOINT, BUNDLE, INDEX))
    measure()
    gather()


if __name__ == "__main__":
    main()
