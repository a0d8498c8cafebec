"""``ragengine bench index``: recall against speed and size, of every way to index."""

from pathlib import Path

import click

from ragengine.cli.output import echo
from ragengine.installation import check_packages
from ragengine.runtime.processor import available_cores
from ragengine_bench.harness.interrupts import INTERRUPTED

METHODS = ("flat", "ivf", "ivf-pq", "opq-ivf-pq", "hnsw")
"""The index methods that are compared."""


@click.command("index")
@click.option(
    "--vectors",
    "count",
    type=click.IntRange(1000),
    default=20_000,
    show_default=True,
    help="Synthetic vectors to draw.",
)
@click.option(
    "--dimension", type=click.IntRange(8), default=768, show_default=True, help="Dimensions of these."
)
@click.option(
    "--index", "folder", type=click.Path(path_type=Path), help="Measure this index's vectors instead."
)
@click.option(
    "--bundle", type=click.Path(path_type=Path), help="The bundle of --index, which encodes --questions."
)
@click.option(
    "--questions",
    "questions_file",
    type=click.Path(path_type=Path),
    help="Search for these questions, a JSONL file; needs --bundle.",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="Measure encoding --index's texts beside torch, too.",
)
@click.option("--texts", type=click.IntRange(16), default=1000, show_default=True, help="Texts to encode.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice(METHODS),
    help="Measure only this method; may be repeated.  [default: all]",
)
@click.option(
    "--hnsw-vectors",
    type=click.IntRange(1000),
    default=200_000,
    show_default=True,
    help="HNSW takes the first so many: building a graph is slow.",
)
@click.option(
    "--queries", type=click.IntRange(20), default=500, show_default=True, help="Number of questions."
)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Runs of encoding.")
@click.option("--threads", type=click.IntRange(1), help="Threads.  [default: all cores]")
@click.option("--work", type=click.Path(path_type=Path), help="Folder for large files.  [default: temporary]")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("build/bench_index"),
    show_default=True,
    help="Folder for report.json and plots.",
)
def index_bench(
    count: int, dimension: int, folder: Path | None, bundle: Path | None, questions_file: Path | None,
    checkpoint: Path | None, texts: int, methods: tuple[str, ...], hnsw_vectors: int, queries: int,
    repeats: int, threads: int | None, work: Path | None, output: Path,
) -> None:  # fmt: skip
    """Measure recall@5, latency, throughput, size and build time of every way to index.

    The vectors are synthetic, clustered as embeddings are (ragengine_bench.index.synthetic_vectors), or those
    of --index.  All methods use ragengine's own search: FAISS proposes candidates, the stored vectors re-rank
    them.  They are compared with flat search of the same run.
    """
    if folder is None and (bundle or questions_file or checkpoint):
        raise click.UsageError("--bundle, --questions and --checkpoint need --index.")
    if (questions_file or checkpoint) and bundle is None:
        raise click.UsageError("--questions and --checkpoint need --bundle.")
    check_packages("ragengine bench index needs", ("onnxruntime", "faiss"), "cpu")
    check_packages("ragengine bench index needs", ("matplotlib",), "bench")
    from ragengine_bench.index.study import compare_methods

    interrupted = compare_methods(
        count=count,
        dimension=dimension,
        folder=folder,
        bundle=bundle,
        questions_file=questions_file,
        checkpoint=checkpoint,
        texts=texts,
        methods=methods or METHODS,
        hnsw_vectors=hnsw_vectors,
        queries=queries,
        repeats=repeats,
        threads=threads or available_cores(),
        work=work,
        output=output,
    )
    if interrupted:
        echo(f"ragengine bench index: interrupted; what was measured is in {output}.", err=True)
        click.get_current_context().exit(INTERRUPTED)
