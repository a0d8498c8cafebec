"""``ragengine bench ray-rag``: seconds a retrieval call, by training processes and retrieval workers."""

from pathlib import Path

import click

from ragengine.cli.output import echo
from ragengine.installation import check_packages


@click.command("ray-rag")
@click.option(
    "--index",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="An index folder, such as `bench scale --keep` leaves.",
)
@click.option(
    "--questions",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="Question vectors, a .npy of float32 [Q, E].",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    multiple=True,
    default=(1, 2, 3, 4),
    show_default=True,
    help="Training processes; may be repeated.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    multiple=True,
    default=(2, 4),
    show_default=True,
    help="Retrieval workers; may be repeated.",
)
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Questions a call.")
@click.option(
    "--documents", type=click.IntRange(1), default=5, show_default=True, help="Documents a question."
)
@click.option("--calls", type=click.IntRange(1), default=60, show_default=True, help="Calls a process.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Turns of all designs.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads a process.")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("build"),
    show_default=True,
    help="Folder for the shards, for which it needs the index's room for each number of workers.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("build/bench_ray_rag"),
    show_default=True,
    help="Folder for report.json.",
)
def ray_rag_bench(
    index: Path, questions: Path, processes: tuple[int, ...], workers: tuple[int, ...], batch: int,
    documents: int, calls: int, rounds: int, threads: int, work: Path, output: Path,
) -> None:  # fmt: skip
    """Compare four designs of retrieval for several training processes, by turns.

    An index that each process maps; actors of Ray that each search a shard; actors that each hold the whole
    index, as in Hugging Face's ray-rag; and the first training process searching for all, over gloo.  The
    processes do nothing but retrieve, each batch twice; the second time is shown.  All designs must find the
    same documents.
    """
    check_packages("ragengine bench ray-rag needs", ("ray", "torch", "transformers"), "ray")
    from ragengine_bench.ray_rag.study import measure_ray_rag, print_ray_rag

    report = measure_ray_rag(
        index=index,
        questions=questions,
        processes=sorted(set(processes)),
        workers=sorted(set(workers)),
        batch=batch,
        n_docs=documents,
        calls=calls,
        rounds=rounds,
        threads=threads,
        work=work,
        output=output,
    )
    print_ray_rag(report)
    echo(f"every figure: {output / 'report.json'}")
