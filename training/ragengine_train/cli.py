"""`ragengine train`."""

from pathlib import Path

import click


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--fresh", is_flag=True, help="Start over: what an earlier run left in the output is removed.")
@click.option(
    "--from",
    "start",
    type=click.Choice(["encoders", "generator", "index", "joint", "checkpoint"]),
    help="Make this stage and what follows again; what comes before stays.",
)
@click.option("--threads", type=click.IntRange(1), help="Threads torch may use [default: all cores].")
def train(config: Path, fresh: bool, start: str | None, threads: int | None) -> None:
    """Train a RAG model as CONFIG.toml says: encoders, generator, then both jointly.

    The same command goes on where a killed one was.
    """
    import torch

    from ragengine_train import pipeline
    from ragengine_train.config import read_config

    if fresh and start is not None:
        raise click.UsageError(
            f"--fresh makes everything again and --from {start} does not; give one of them."
        )
    settings = read_config(config)
    if threads is not None:
        torch.set_num_threads(threads)
    report = pipeline.train(settings, start=start, fresh=fresh)
    click.echo(
        f"{settings.output / 'checkpoint'} after {report['seconds']:.0f} s; {settings.output / 'report.json'}"
    )
