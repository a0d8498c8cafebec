"""The `ragengine` command: it imports a subcommand when that is called, and prints typed errors."""

import contextlib
import importlib
import signal
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from types import FrameType
from typing import Any

import click

from ragengine.cli.output import echo
from ragengine.cli.streams import OutputError, abandon_stdout, guard_streams
from ragengine.errors import DependencyError, RagEngineError
from ragengine.installation import missing_package, pip_install
from ragengine.messages import shown, shown_lines
from ragengine.version import __version__

# command -> (module, attribute, help), so that --help does not import numpy, faiss and onnxruntime
_COMMANDS = {
    "ask": ("ragengine.cli.ask", "ask", "Answer questions and show where the answers came from."),
    "calibrate": (
        "ragengine.cli.calibrate",
        "calibrate",
        "Fit how far answers can be trusted, and write it beside the index.",
    ),
    "demo": ("ragengine.cli.demo", "demo", "Answer some questions with the embedded worldfacts model."),
    "doctor": ("ragengine.cli.doctor", "doctor", "Say what is installed and works here, and why not."),
    "eval": (
        "ragengine.cli.evaluate",
        "evaluate_command",
        "Measure exact match, F1 and retrieval on a file of questions.",
    ),
    "index": ("ragengine.cli.index", "index", "Build, describe and check indexes of passages."),
}
# command -> (extra, help); these are in other packages, which entry points name
_EXTRAS = {
    "bench": ("bench", "Measure latency on this machine, beside transformers."),
    "consolidate": ("train", "Write one RAG checkpoint of a question encoder and a generator."),
    "export": ("export", "Export a Hugging Face RAG checkpoint to a bundle."),
    "data": ("train", "Convert questions of other projects, and check data before training on them."),
    "serve": ("serve", "Answer questions over HTTP, with metrics, streaming and a page."),
    "starter": ("export", "Write a model to start from: an encoder of any English text, a small generator."),
    "train": ("train", "Train encoders, generator and both jointly on your own questions."),
    "unpack": ("export", "Write the Hugging Face checkpoint that a bundle was exported from."),
}


class _Commands(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*_COMMANDS, *_EXTRAS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _COMMANDS:
            module, attribute, _ = _COMMANDS[cmd_name]
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        return _from_extra(cmd_name) if cmd_name in _EXTRAS else None

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _usage_errors_shown():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _usage_errors_shown():
                return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            # A writer that was interrupted has added a note about what it left.
            notes = "; ".join(["interrupted", *getattr(interrupt, "__notes__", [])])
            echo(f"ragengine: {notes}.", err=True)
            ctx.exit(128 + (signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        helps = {name: help for name, (_, _, help) in _COMMANDS.items()}
        helps |= {name: help for name, (_, help) in _EXTRAS.items()}
        with formatter.section("Commands"):
            formatter.write_dl([(name, helps[name]) for name in self.list_commands(ctx)])


@contextlib.contextmanager
def _usage_errors_shown() -> Iterator[None]:
    """Click quotes what was typed: let no terminal obey it."""
    try:
        yield
    except click.ClickException as error:
        said = error.format_message()
        if shown_lines(said) == said:
            raise
        raise click.UsageError(shown(said), getattr(error, "ctx", None)) from error


def _from_extra(name: str) -> click.Command:
    """Import a command of another package, whose help does without the extra that the command needs."""
    extra, _ = _EXTRAS[name]
    for entry in entry_points(group="ragengine.commands", name=name):
        try:
            command: click.Command = entry.load()
        except ModuleNotFoundError as reason:
            raise missing_package(f"ragengine {name} needs", reason, extra) from reason
        return command
    raise DependencyError(f"ragengine {name} is not installed; run {pip_install(extra)}.")


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="ragengine")
def cli() -> None:
    """Retrieval-Augmented Generation from ONNX files: the answers of transformers, without torch."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does, so that nothing half-written stays."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def main() -> None:
    """Run the command line and exit: 0 fine, 1 an error in one sentence, 2 usage, 130 Ctrl-C, 143 SIGTERM."""
    signal.signal(signal.SIGTERM, _terminate)
    guard_streams()
    try:
        cli()
    except RagEngineError as error:
        echo(f"ragengine: {error}", err=True)
        if isinstance(error, OutputError):
            abandon_stdout()
        sys.exit(1)
