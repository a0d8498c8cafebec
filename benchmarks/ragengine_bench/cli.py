"""`ragengine bench`: what this machine would gain, measured side by side in one run."""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
from rich.console import Console

from ragengine import GenerationOptions, Generator, RagEngine
from ragengine.evaluation import read_questions
from ragengine.sessions import available_cores
from ragengine_bench.measure import Samples, machine, side_by_side
from ragengine_bench.peers import TransformersGenerator, TransformersRag
from ragengine_bench.report import print_comparison, write_report
from ragengine_bench.shapes import SHAPES, write_random_checkpoint
from ragengine_export import export_checkpoint


@click.command()
@click.option(
    "--shape", type=click.Choice(SHAPES), default="worldfacts", show_default=True, help="Random weights."
)
@click.option("--documents", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--source-tokens", type=click.IntRange(2), default=160, show_default=True, help="Of each document."
)
@click.option("--num-beams", type=click.IntRange(1), default=4, show_default=True)
@click.option("--target-tokens", type=click.IntRange(2), default=20, show_default=True, help="Forced length.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="For every engine alike [default: all cores].")
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), help="Measure whole questions on this model too ..."
)
@click.option("--bundle", type=click.Path(path_type=Path), help="... exported here ...")
@click.option("--index", type=click.Path(path_type=Path), help="... with this index ...")
@click.option("--questions", type=click.Path(path_type=Path), help="... and these questions (the first 20).")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for report.json.")
def bench(
    shape: str, documents: int, source_tokens: int, num_beams: int, target_tokens: int, repeats: int,
    threads: int | None, checkpoint: Path | None, bundle: Path | None, index: Path | None,
    questions: Path | None, output: Path | None,
) -> None:  # fmt: skip
    """Measure generation beside transformers, with random weights of a true shape.

    Both read the same random documents and search with the same beams for a forced number of tokens.
    With --checkpoint, --bundle, --index and --questions whole questions are measured as well, from
    text to text on the same trained model, and the answers compared.
    """
    whole = [checkpoint, bundle, index, questions]
    if any(whole) and not all(whole):
        raise click.UsageError("--checkpoint, --bundle, --index and --questions go together")
    console, threads = Console(), threads or available_cores()
    progress: Callable[[str], None] = Console(stderr=True).print
    sections: dict[str, Sequence[Samples]] = {}
    size = f"{documents} documents x {source_tokens}, {num_beams} beams, {target_tokens} tokens"
    sections[f"RAG-Token, {shape} shape, {size}"] = _generation(
        shape, (1, documents, source_tokens), num_beams, target_tokens, repeats, threads, progress
    )
    if checkpoint and bundle and index and questions:
        sections["whole questions, trained model"] = _questions(
            checkpoint, bundle, index, questions, threads, progress
        )
    for name, samples in sections.items():
        print_comparison(console, name, samples)
    if output is not None:
        write_report(output, machine(threads), sections)
        console.print(f"every sample: {output / 'report.json'}")


def _generation(
    shape: str, size: tuple[int, int, int], beams: int, tokens: int, repeats: int, threads: int,
    progress: Callable[[str], None],
) -> list[Samples]:  # fmt: skip
    options = {"num_beams": beams, "max_length": tokens, "min_length": tokens}
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, bundle = Path(folder) / "checkpoint", Path(folder) / "bundle"
        progress(f"writing and exporting a random {shape} model")
        write_random_checkpoint(shape, checkpoint)
        export_checkpoint(checkpoint, bundle, check=False)
        theirs, ours = TransformersGenerator(checkpoint, threads), Generator.load(bundle, "cpu", threads)
        ids = rng.integers(4, ours.bundle.manifest.generator.vocab_size, size)
        mask, scores = np.ones_like(ids), rng.normal(size=size[:2]).astype(np.float32)
        chosen = GenerationOptions.from_dict({**ours.default_options.to_dict(), **options})
        default = ours.bundle.manifest.rag.max_combined_length
        return side_by_side(
            {
                f"transformers as it comes, padded to {default}": lambda: theirs.generate(
                    ids, scores, default, **options
                ),
                "transformers, padded to the longest": lambda: theirs.generate(ids, scores, 0, **options),
                "ragengine fp32": lambda: ours.generate(ids, mask, scores, chosen),
            },
            repeats,
            progress,
        )


def _questions(
    checkpoint: Path,
    bundle: Path,
    index: Path,
    questions: Path,
    threads: int,
    progress: Callable[[str], None],
) -> list[Samples]:
    """A sample a question for each engine, after a question that warms it up.

    One engine after the other, not taking turns: that slows transformers from 0.2 to 1.0 s a question, which
    would flatter us (docs/design.md, Threads).
    """
    asked = [question.question for question in read_questions(questions)[:20]]
    theirs = TransformersRag(checkpoint, index, threads)
    expected, slow = _timed(theirs.ask, asked)
    with RagEngine.load(bundle, index=index, device="cpu", threads=threads) as ours:
        answers, quick = _timed(lambda question: ours.generate(question).text, asked)
    same = sum(answer == other for answer, other in zip(answers, expected, strict=True))
    progress(f"{same} of {len(asked)} answers are the same text")
    return [Samples("transformers as it comes", slow), Samples("ragengine fp32", quick)]


def _timed(ask: Callable[[str], str], questions: list[str]) -> tuple[list[str], tuple[float, ...]]:
    ask(questions[0])
    answers, seconds = [], []
    for question in questions:
        start = time.perf_counter()
        answers.append(ask(question))
        seconds.append(time.perf_counter() - start)
    return answers, tuple(seconds)
