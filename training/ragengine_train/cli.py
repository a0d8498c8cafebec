"""`ragengine train` and `ragengine data`."""

from pathlib import Path
from typing import Any, Literal

import click

import ragengine_train
from ragengine.cli.common import name_value_pairs
from ragengine.cli.output import echo
from ragengine.errors import PassagesError
from ragengine.messages import shown
from ragengine_export.choices import GIVEN_POOLINGS
from ragengine_train.choices import RESULTS, ResultName
from ragengine_train.formats import FORMATS, FormatName


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
    run_training = ragengine_train.train  # says what to install where torch is missing
    from ragengine_train import processes

    if processes.were_restarted():  # what they made before stays
        fresh, start = False, None
    with processes.joined(), processes.one_message():
        result = run_training(
            config,
            start=start,
            fresh=fresh,
            threads=threads,
            progress=lambda report: echo(report.message, err=True),
        )
        if processes.is_first():
            echo(f"{result.checkpoint} after {result.seconds:.0f} s; {result.report}")


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--question-encoder", metavar="ID", required=True, help="A folder or hub name.")
@click.option("--generator", metavar="ID", required=True, help="A BART, T5, mBART, ...")
@click.option("--context-encoder", metavar="ID", help="A passage encoder, written beside.")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["token", "sequence"]),
    default="token",
    show_default=True,
    help="RAG-Token or RAG-Sequence.",
)
@click.option("--pooling", type=click.Choice(GIVEN_POOLINGS), help="Of a bare encoder.")
@click.option("--n-docs", type=click.IntRange(1), default=5, show_default=True, help="Documents to read.")
@click.option(
    "--max-combined-length",
    type=click.IntRange(1),
    default=300,
    show_default=True,
    help="Tokens of a document with the question.",
)
@click.option("--title-sep", default=" / ", show_default=True, help="Between title and text.")
@click.option("--doc-sep", default=" // ", show_default=True, help="Between text and question.")
@click.option("--prefix", help="What a prompt begins with [default: the generator's].")
@click.option(
    "--set",
    "generation",
    multiple=True,
    metavar="NAME=VALUE",
    callback=name_value_pairs,
    help="A field of generation_config.json (num_beams=4); may be repeated.",
)
def consolidate(checkpoint: Path, question_encoder: str, generator: str, **settings: Any) -> None:
    """Write one RAG checkpoint, the folder CHECKPOINT, of a question encoder and a generator."""
    from ragengine_export.quiet import quiet
    from ragengine_train.consolidation import consolidate as join_networks

    with quiet():
        written = join_networks(question_encoder, generator, checkpoint, **settings)
    echo(str(written))


@click.group()
def data() -> None:
    """Convert questions of other projects, and check data before training on them."""


@data.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="Exit with 1 where anything is found.")
def check(config: Path, strict: bool) -> None:
    """Warn of what makes the training of CONFIG.toml useless, and would raise no error.

    Words that are unknown to the tokenizer, answers that it cannot write or that stand in no passage,
    questions of dev that are trained on, unknown passage ids, prompts and answers that are cut.
    """
    from ragengine_train.data_check import check_data, described

    findings = check_data(config)
    for text in described(findings):
        echo(shown(text))
    if not findings:
        echo("nothing found")
    elif strict:
        kinds = ", ".join(finding.kind for finding in findings)
        raise PassagesError(f"{config} has data that training is useless with: {kinds}; see above.")


@data.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path), metavar="TARGET.jsonl")
@click.option("--format", "name", type=click.Choice(FORMATS), help="Of SOURCE [default: found from it].")
@click.option("--split", default="train", show_default=True, help="The part of a folder that is read.")
@click.option(
    "--answers",
    type=click.Path(path_type=Path),
    help="A file with an answer a line, for a file of questions.",
)
@click.option(
    "--titles",
    type=click.Path(path_type=Path),
    help="A file with the titles of the right pages a line, between tabs, for a file of questions.",
)
@click.option(
    "--contexts",
    type=click.Choice(["inline", "ids"]),
    default="inline",
    show_default=True,
    help="Put passages of SOURCE into the lines, or the ids that they have in a passages file at hand.",
)
@click.option(
    "--passages",
    type=click.Path(path_type=Path),
    metavar="PASSAGES.jsonl",
    help="Write passages of SOURCE to this file, and their ids there into the lines.",
)
def convert(
    source: Path,
    target: Path,
    name: FormatName | None,
    split: str,
    answers: Path | None,
    titles: Path | None,
    contexts: Literal["inline", "ids"],
    passages: Path | None,
) -> None:
    """Write the questions of another project as JSONL, and say what was dropped and why.

    SOURCE is a folder of {train,val,test}.{source,target} or of BEIR, or a file: DPR's
    biencoder-nq-train.json, the gold files of eval_rag.py, SQuAD, NQ-open, KILT, or BEIR's qrels/SPLIT.tsv.
    """
    from ragengine_train.data_convert import convert_questions

    report = convert_questions(
        source,
        target,
        format=name,
        split=split,
        answers=answers,
        titles=titles,
        contexts=contexts,
        passages=passages,
    )
    for text in report.lines():
        echo(shown(text))
