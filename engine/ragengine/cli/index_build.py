"""``ragengine index build``: an index of passages, at once or in shards by jobs that run apart."""

from typing import Any

import click

from ragengine.cli.common import force_option, may_replace
from ragengine.cli.index_options import (
    batch_tokens_option,
    embeddings_option,
    print_result,
    queries_option,
    reading_options,
    recall_option,
    threads_option,
)
from ragengine.cli.index_progress import progress_bars
from ragengine.cli.output import echo
from ragengine.messages import short_repr


class _Place(click.ParamType[tuple[int, int]]):
    """``i/N``: shard i of N, from 0 on."""

    name = "i/N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """The two numbers of a text."""
        if isinstance(value, tuple):
            return value
        number, _, shards = str(value).partition("/")
        if not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in (number, shards)):
            self.fail(f"{short_repr(value)} is not i/N, such as 0/4, 1/4, 2/4 or 3/4.", param, ctx)
        return int(number), int(shards)


class _ReadsPassages(click.Option):
    """An option that is required, except by ``--gather``."""

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """The value, or None where ``--gather``, which is processed before, does not need it."""
        if ctx.params.get("gather") and self.value_is_missing(value):
            return None
        return super().process_value(ctx, value)


@click.command("build")
@click.argument("passages", type=click.Path(), nargs=-1, metavar="PASSAGES...")
@click.argument("index", type=click.Path())
@click.option(
    "--bundle",
    cls=_ReadsPassages,
    required=True,
    type=click.Path(),
    help="The bundle whose passage encoder is used.",
)
@reading_options
@click.option(
    "--factory",
    metavar="STR",
    help="FAISS factory string.  [default: Flat, which is exact, below 50,000 passages; then OPQ + IVF + PQ]",
)
@recall_option
@embeddings_option
@queries_option
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Draws the samples.")
@click.option("--train-only", is_flag=True, help="Count PASSAGES and train for --shard, in the folder INDEX.")
@click.option("--shard", type=_Place(), help="Build shard i of N, numbered from 0, in the folder INDEX.")
@click.option(
    "--gather", is_flag=True, is_eager=True, help="Make an index of the shards in the folder INDEX."
)
@click.option("--resume", is_flag=True, help="Go on with a build of INDEX that was killed or interrupted.")
@force_option
@batch_tokens_option
@threads_option
@click.pass_context
def build_command(
    context: click.Context,
    /,
    passages: tuple[str, ...],
    index: str,
    bundle: str | None,
    factory: str | None,
    recall: float,
    embeddings: str | None,
    queries: str | None,
    seed: int,
    train_only: bool,
    shard: tuple[int, int] | None,
    gather: bool,
    resume: bool,
    force: bool,
    batch_tokens: int,
    threads: int | None,
    **reading: Any,
) -> None:
    """Build INDEX from PASSAGES, one or more inputs.

    PASSAGES are tables with a header (.tsv, .csv, .parquet), .jsonl of {"id", "title", "text"}, folders
    written by datasets.Dataset.save_to_disk, documents that are split into passages (.txt, .md, .html, .pdf,
    .docx), or folders of all these; text formats may be gzipped (.gz).

    An index in shards is built by jobs that may run apart: --train-only, then --shard i/N for each shard,
    then --gather, which takes no PASSAGES.
    """
    step = _step(context, train_only=train_only, shard=shard is not None, gather=gather, resume=resume)
    if gather:
        if passages:
            raise click.UsageError("--gather reads no PASSAGES; give the folder of the shards alone.")
        _gather(index, queries=queries, recall=recall, force=force, threads=threads)
        return
    if not passages:
        raise click.MissingParameter(param_hint="'PASSAGES...'", param_type="argument")
    reading |= {"bundle": bundle, "embeddings": embeddings, "batch_tokens": batch_tokens, "threads": threads}
    if step == "--train-only":
        _train(passages, index, factory=factory, seed=seed, force=force, **reading)
    elif shard is not None:
        _shard(passages, index, *shard, resume=resume, force=force, **reading)
    else:
        _build(
            passages,
            index,
            factory=factory,
            recall=recall,
            queries=queries,
            seed=seed,
            resume=resume,
            force=force if resume else may_replace(index, force),
            **reading,
        )


_USED = {
    "--train-only": ("factory", "seed"),
    "--shard": ("resume",),
    "--gather": ("recall", "queries"),
}
"""What each step takes of the options that not all of them take."""


def _step(context: click.Context, **chosen: bool) -> str | None:
    """The one step that was chosen, or None for all at once; refuses options that it does not take."""
    steps = [f"--{name.replace('_', '-')}" for name, given in chosen.items() if given and name != "resume"]
    if len(steps) > 1:
        raise click.UsageError(f"{' and '.join(steps)} are steps of their own; give one at a time.")
    if not steps:
        return None
    step = steps[0]
    for name in {name for used in _USED.values() for name in used} - set(_USED[step]):
        if context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            takes = next(other for other, used in _USED.items() if name in used)
            raise click.UsageError(f"{step} does not take --{name}, which belongs to {takes}.")
    return step


def _build(passages: tuple[str, ...], index: str, **given: Any) -> None:
    from ragengine import build_index

    with progress_bars() as progress:
        manifest = build_index(passages, index, **given, progress=progress, on_plan=_say_plan)
    print_result(index, manifest)


def _train(passages: tuple[str, ...], out: str, **given: Any) -> None:
    from ragengine import train_quantizer

    with progress_bars() as progress:
        trained = train_quantizer(passages, out, **given, progress=progress, on_plan=_say_plan)
    echo(f"{out} is trained for {trained.count:,} passages: {trained.factory}, {trained.quantizer[:12]}.")


def _shard(passages: tuple[str, ...], out: str, number: int, shards: int, **given: Any) -> None:
    from ragengine import build_shard

    with progress_bars() as progress:
        entry = build_shard(passages, out, shard=number, shards=shards, **given, progress=progress)
    rows = f"rows {entry.first_row} to {entry.first_row + entry.count - 1}" if entry.count else "no passages"
    echo(f"Shard {number} of {shards} in {out} has {rows}.")


def _gather(out: str, *, force: bool, **given: Any) -> None:
    from ragengine import gather_shards

    with progress_bars() as progress:
        manifest = gather_shards(out, **given, force=may_replace(out, force), progress=progress)
    print_result(out, manifest)


def _say_plan(plan: Any) -> None:
    echo(f"{plan.factory}: {plan.reason}.", err=True)
