"""From flags, environment and configuration file to :class:`Settings`: the first that says something wins."""

import dataclasses
import difflib
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ragengine.messages import one_line, short_repr
from ragengine.storage.foreign_files import read_plain
from ragengine_serve.configuration.settings import SETTINGS, ModelFolders, Settings
from ragengine_serve.errors import SettingsError

ENVIRONMENT = "RAGENGINE_"
"""Before the name of every setting in the environment: ``RAGENGINE_MAX_QUEUE``."""
_LARGEST_FILE = 1 << 20
_TYPES = get_type_hints(Settings)


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return ENVIRONMENT + name.upper()


def read_settings(
    flags: Mapping[str, Any], environment: Mapping[str, str], models: tuple[ModelFolders, ...] = ()
) -> Settings:
    """The settings of flags, then of the environment, then of the file that ``config`` names in either.

    Args:
        flags: by name; None where one was not given.
        environment: the environment's variables.
        models: what the arguments of the command name; they replace those of the file.

    Raises:
        SettingsError: a file or a value that cannot be used.
    """
    config = flags.get("config") or environment.get(variable("config"))
    values = _from_file(Path(config)) if config else {}
    values |= {
        spec.name: _converted(spec.name, environment[variable(spec.name)], variable(spec.name))
        for spec in SETTINGS
        if environment.get(variable(spec.name))
    }
    given = {spec.name: flags.get(spec.name) for spec in SETTINGS}
    values |= {name: value for name, value in given.items() if value is not None and value != ()}
    if models:
        values["models"] = models
    return Settings(**values)


def models_of_environment(environment: Mapping[str, str]) -> tuple[ModelFolders, ...]:
    """The model that ``RAGENGINE_BUNDLE`` and ``RAGENGINE_INDEX`` name, if they do."""
    bundle, index = (environment.get(variable(name)) for name in ("bundle", "index"))
    if bool(bundle) != bool(index):
        raise SettingsError("RAGENGINE_BUNDLE and RAGENGINE_INDEX go together; set both.")
    if not bundle or not index:
        return ()
    return (folders_of(Path(bundle), Path(index)),)


def folders_of(bundle: Path, index: Path, name: str | None = None) -> ModelFolders:
    """A model of two folders, named as the bundle's; as the folder above where that is just ``bundle``."""
    path = bundle.resolve()
    return ModelFolders(name or (path.parent.name if path.name == "bundle" else path.name), bundle, index)


def _from_file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(read_plain(path, _LARGEST_FILE).decode("utf-8"))
    except (OSError, ValueError) as reason:
        raise SettingsError(
            f"{path} cannot be read as a configuration: {one_line(reason)}; see docs/guides/serving.md."
        ) from reason
    names = [*(spec.name for spec in SETTINGS), "models"]
    for name in content:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}."
            raise SettingsError(f"{path} sets {short_repr(name)}, which is no setting; {hint}")
    values = {
        name: _typed(name, value, f"{path}: {name}") for name, value in content.items() if name != "models"
    }
    if "models" in content:
        values["models"] = _models(path, content["models"])
    return values


def _models(path: Path, entries: Any) -> tuple[ModelFolders, ...]:
    """``[[models]]``: paths are relative to the file."""
    wrong = SettingsError(
        f"{path} has models that are not [[models]] with name (optional), bundle and index as strings."
    )
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise wrong
    models = []
    for entry in entries:
        if not {"bundle", "index"} <= entry.keys() <= {"name", "bundle", "index"}:
            raise wrong
        if not all(isinstance(value, str) for value in entry.values()):
            raise wrong
        bundle, index = path.parent / entry["bundle"], path.parent / entry["index"]
        models.append(folders_of(bundle, index, entry.get("name")))
    return tuple(models)


def _converted(name: str, text: str, where: str) -> Any:
    """A value of the environment."""
    kind = _kind(name)
    if kind is bool:
        known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
        if text.lower() not in known:
            raise SettingsError(f"{where} is {short_repr(text)}; it must be true or false.")
        return known[text.lower()]
    if kind is int:
        try:
            return int(text)
        except ValueError:
            raise SettingsError(f"{where} is {short_repr(text)}; it must be a whole number.") from None
    if kind is tuple:
        return _typed(name, [part.strip() for part in text.split(",") if part.strip()], where)
    return _typed(name, text, where)


def _typed(name: str, value: Any, where: str) -> Any:
    """A value of the file, as the field takes it."""
    kind = _kind(name)
    if kind is tuple and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise SettingsError(
                f"{where} is {short_repr(value)}; it must be {' or '.join(map(repr, get_args(kind)))}."
            )
        return value
    if kind is tuple or type(value) is not kind:
        word = {tuple: "a list of strings", int: "a whole number", bool: "true or false"}.get(
            kind, "a string"
        )
        raise SettingsError(f"{where} is {short_repr(value)}; it must be {word}.")
    return value


def _kind(name: str) -> Any:
    """The type of a setting, without None: int, bool, str, Path, tuple, or a Literal."""
    hint = _TYPES[name]
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    return tuple if get_origin(hint) is tuple else hint


def to_json(settings: Settings) -> dict[str, Any]:
    """The settings as JSON values, for a worker process."""
    values = dataclasses.asdict(settings)
    return {name: _plain(value) for name, value in values.items()}


def setting_value(name: str, value: Any, where: str) -> Any:
    """A setting of that name from a string, as in the environment, or a JSON value, as in the file.

    Raises:
        SettingsError: it is of another type; ``where`` begins the message.
    """
    return _converted(name, value, where) if isinstance(value, str) else _typed(name, value, where)


def from_json(values: Mapping[str, Any]) -> Settings:
    """The settings of :func:`to_json`."""
    models = tuple(ModelFolders(m["name"], Path(m["bundle"]), Path(m["index"])) for m in values["models"])
    given: dict[str, Any] = {
        name: value if value is None else _typed(name, value, name)
        for name, value in values.items()
        if name != "models"
    }
    return Settings(**given, models=models)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value
