"""`ragengine serve`: the engine as a service."""

import asyncio
import os
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import click

from ragengine.cli.common import folder_options, placed
from ragengine.cli.demo import embedded_model
from ragengine.cli.output import echo
from ragengine.installation import check_packages
from ragengine_serve.configuration.settings import SETTINGS, Settings
from ragengine_serve.configuration.sources import folders_of, models_of_environment, read_settings

F = TypeVar("F", bound=Callable[..., Any])


def setting_options(command: F) -> F:
    """A flag for every setting; only its help says the default, which environment and file come before."""
    for spec in reversed(SETTINGS):
        flag = f"--{spec.name.replace('_', '-')}"
        hint = get_type_hints(Settings)[spec.name]
        if get_origin(hint) in (Union, types.UnionType):
            (hint,) = (part for part in get_args(hint) if part is not type(None))
        help = spec.metadata["help"]
        if "[default" not in help and spec.default not in (None, (), False):
            help = f"{help.rstrip('.')} [default: {spec.default}]."
        settings: dict[str, Any] = {"default": None, "help": help}
        if hint is bool:
            settings |= {"is_flag": True}
        elif get_origin(hint) is Literal:
            settings["type"] = click.Choice(get_args(hint))
        elif get_origin(hint) is tuple:
            settings |= {"multiple": True, "metavar": "ORIGIN"}
        elif hint is Path:
            settings["type"] = click.Path(path_type=Path)
        else:
            settings["type"] = hint
        command = click.option(flag, spec.name, **settings)(command)
    return command


@click.command()
@click.argument("bundle", required=False)
@click.argument("index", required=False)
@folder_options
@click.option(
    "--config", type=click.Path(path_type=Path), help="TOML file with these settings and [[models]]."
)
@click.option("--model-name", help="Name of the model [default: its folder's].")
@setting_options
def serve(
    bundle: str | None,
    index: str | None,
    bundle_folder: Path | None,
    index_folder: Path | None,
    model_name: str | None,
    **flags: Any,
) -> None:
    """Answer questions over HTTP with the model in BUNDLE from the passages in INDEX.

    Without BUNDLE and INDEX: the models of --config, or the embedded worldfacts model; with --shard, a shard
    for engines elsewhere.  Every option is also a variable RAGENGINE_NAME in the environment and a line of
    the file; the command line wins, then the environment.  SIGTERM and Ctrl-C let running requests finish,
    and the exit code is then 0.
    """
    check_packages("ragengine serve needs", ("fastapi", "uvicorn", "prometheus_client"), "serve")
    model, passages, others = placed([bundle, index], bundle_folder, index_folder)
    if (model is None) != (passages is None):
        raise click.UsageError("Missing argument: give BUNDLE and INDEX, or neither.")
    if others:
        raise click.UsageError(f"Got unexpected extra argument ({others[0]}).")
    if model is not None and passages is not None:
        models: Any = (folders_of(model, passages, model_name),)
    else:
        models = models_of_environment(os.environ)
    settings = read_settings(flags, os.environ, models)
    if not settings.models and settings.shard is None:
        folder = embedded_model(Path.cwd(), Path(__file__).resolve(), otherwise="name a bundle and an index")
        embedded = folders_of(folder / "bundle", folder / "index", model_name)
        settings = read_settings(flags, os.environ, (embedded,))
    run(settings)


def run(settings: Settings) -> None:
    """Serve with these settings until a signal.

    Raises:
        StartError, RagEngineError: the server cannot start.
    """
    from ragengine_serve.observability.logs import configure_logging
    from ragengine_serve.process.listening import address, is_open, listening_socket

    configure_logging(settings.log_level)
    with listening_socket(settings) as listening:
        names = ", ".join(model.name for model in settings.models) or f"the shard {settings.shard}"
        echo(f"ragengine serve: {names} at {address(listening)}")
        if is_open(settings):
            echo(
                "ragengine serve: other machines can reach this server and need no key; give --api-key-file.",
                err=True,
            )
        asyncio.run(_serve(settings, listening))


async def _serve(settings: Settings, listening: Any) -> None:
    if settings.workers > 1:
        from ragengine_serve.process.supervisor import Supervisor

        await Supervisor(settings, listening).run()
        return
    from ragengine_serve.process.server import serve as serve_here
    from ragengine_serve.state import ServerState

    await serve_here(ServerState.of(settings), listening)
