"""``ragengine bench scale``: builds an index of a given size as users do, and measures what it takes."""

from pathlib import Path

import click

from ragengine.cli.output import echo
from ragengine.installation import check_packages
from ragengine.runtime.processor import available_cores


@click.command("scale")
@click.option(
    "--vectors",
    "count",
    type=click.IntRange(50_000),
    default=1_000_000,
    show_default=True,
    help="Passages with synthetic vectors.  The paper has 21,015,300.",
)
@click.option(
    "--dimension", type=click.IntRange(8), default=768, show_default=True, help="Dimensions of these."
)
@click.option(
    "--queries",
    type=click.IntRange(20, 1000),
    default=500,
    show_default=True,
    help="Questions to tune with, and as many others to measure.",
)
@click.option(
    "--kills",
    type=click.IntRange(0, 2),
    default=2,
    show_default=True,
    help="Kill the build so many times, at random moments of vectors and add, and resume it.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws these moments.")
@click.option("--threads", type=click.IntRange(1), help="Threads of the build.  [default: all cores]")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("build/scale"),
    show_default=True,
    help="Folder for the index and what it is made of.",
)
@click.option("--keep", is_flag=True, help="Keep the index and its passages.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("build/bench_scale"),
    show_default=True,
    help="Folder for report.json.",
)
def scale_bench(
    count: int, dimension: int, queries: int, kills: int, seed: int, threads: int | None, work: Path,
    keep: bool, output: Path,
) -> None:  # fmt: skip
    """Build an index of synthetic vectors, kill and resume the build, then search it cold and warm.

    Prints time and anonymous memory by phase, bytes a vector, recall@5 of questions that nothing was tuned
    for, and search times on one thread.  The vectors are made block by block while the index is built.
    """
    check_packages("ragengine bench scale needs", ("onnxruntime", "faiss"), "cpu")
    check_packages("ragengine bench scale needs", ("torch", "transformers", "onnxscript"), "export")
    from ragengine_bench.index.scale.study import measure_scale, print_scale

    report = measure_scale(
        count=count,
        dimension=dimension,
        queries=queries,
        kills=kills,
        seed=seed,
        threads=threads or available_cores(),
        work=work,
        keep=keep,
        output=output,
    )
    print_scale(report)
    echo(f"every figure: {output / 'report.json'}")
