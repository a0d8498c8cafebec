"""`ragengine train`."""

from pathlib import Path

import click

from ragengine.cli.output import echo
from ragengine_train.choices import RESULTS, ResultName


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--fresh", is_flag=True, help="Start over: what an earlier run left in the output is removed.")
@click.option(
    "--from",
    "start",
    type=click.Choice(RESULTS),
    help="Make this stage and what follows again; what comes before stays.",
)
@click.option("--threads", type=click.IntRange(1), help="Threads torch may use [default: all cores].")
def train(config: Path, fresh: bool, start: ResultName | None, threads: int | None) -> None:
    """Train a RAG model as CONFIG.toml says: encoders, generator, then both jointly.

    The same command goes on where a killed one was.
    """
    if fresh and start is not None:
        raise click.UsageError(
            f"--fresh makes everything again and --from {start} does not; give one of them."
        )
    from ragengine_train import train as run_training

    result = run_training(
        config,
        start=start,
        fresh=fresh,
        threads=threads,
        progress=lambda report: echo(report.message, err=True),
    )
    echo(f"{result.checkpoint} after {result.seconds:.0f} s; {result.report}")
