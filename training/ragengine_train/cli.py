"""`ragengine train` and `ragengine data`."""

from pathlib import Path

import click

from ragengine.cli.output import echo
from ragengine.errors import PassagesError
from ragengine.messages import shown
from ragengine_train.data_check import check_data, described
from ragengine_train.pipeline import train as run_training
from ragengine_train.provenance import RESULTS, ResultName


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
    result = run_training(
        config,
        start=start,
        fresh=fresh,
        threads=threads,
        progress=lambda report: echo(report.message, err=True),
    )
    echo(f"{result.checkpoint} after {result.seconds:.0f} s; {result.report}")


@click.group()
def data() -> None:
    """Check questions and documents before training on them."""


@data.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="Exit with 1 where anything is found.")
def check(config: Path, strict: bool) -> None:
    """Warn of what makes the training of CONFIG.toml useless, and would raise no error.

    Words that are unknown to the tokenizer, answers that it cannot write or that stand in no passage, questions
    of dev that are trained on, unknown passage ids, prompts and answers that are cut.
    """
    findings = check_data(config)
    for text in described(findings):
        echo(shown(text))
    if not findings:
        echo("nothing found")
    elif strict:
        kinds = ", ".join(finding.kind for finding in findings)
        raise PassagesError(f"{config} has data that training is useless with: {kinds}; see above.")
