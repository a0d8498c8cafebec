"""The arguments of the application, checked."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragengine.cli.demo import embedded_model
from ragengine.messages import short_repr
from ragengine_serve.configuration.settings import SETTINGS, Settings
from ragengine_serve.configuration.sources import folders_of, setting_value
from ragengine_serve.errors import SettingsError

_ELSEWHERE = {
    "host": "http_options of Serve's config file says it",
    "port": "http_options of Serve's config file says it",
    "uds": "Serve listens on a port",
    "workers": "give replicas",
    "admin_key_file": "an index is swapped by an update of the application, in all replicas",
    "index_root": "an index is swapped by an update of the application, in all replicas",
}
"""Settings of `ragengine serve` that a process of Ray Serve has not, and what takes their place."""


@dataclass(frozen=True)
class AppOptions:
    """What an application is made of.  Checks itself when made.

    settings        those of the server in each engine replica; they name the one model
    replicas        engines at least
    max_replicas    engines at most, by load; None: always ``replicas``
    encoders        replicas that encode questions; 0: each engine encodes its own
    shard_replicas  replicas of each shard, where the index has shards
    cpus, gpus      what Ray reserves for an engine
    retrieval       the application whose encoder and shards are asked in the place of own ones
    answer_timeout  seconds that another replica may take to answer
    start_timeout   seconds that the others may take until they answer for the first time
    """

    settings: Settings
    replicas: int = 1
    max_replicas: int | None = None
    encoders: int = 1
    shard_replicas: int = 1
    cpus: int = 2
    gpus: float = 0
    retrieval: str | None = None
    answer_timeout: float = 10
    start_timeout: float = 600

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {value!r}, it must be at least {least}"
            for name, value, least in (
                ("replicas", self.replicas, 1),
                ("max_replicas", self.max_replicas, self.replicas),
                ("encoders", self.encoders, 0),
                ("shard_replicas", self.shard_replicas, 1),
                ("cpus", self.cpus, 1),
                ("gpus", self.gpus, 0),
            )
            if value is not None and not value >= least
        ]
        faults += [
            f"{name} is {value!r}, it must be above 0 and finite"
            for name, value in (
                ("answer_timeout", self.answer_timeout),
                ("start_timeout", self.start_timeout),
            )
            if not 0 < value < float("inf")
        ]
        if faults:
            raise SettingsError(f"Wrong arguments of the application: {'; '.join(faults)}.")


_NUMBERS: dict[str, type[int] | type[float]] = {
    "replicas": int, "max_replicas": int, "encoders": int, "shard_replicas": int, "cpus": int,
    "gpus": float, "answer_timeout": float, "start_timeout": float,
}  # fmt: skip
_TEXTS = ("bundle", "index", "model_name", "retrieval")
_SERVER = tuple(spec.name for spec in SETTINGS if spec.name not in _ELSEWHERE)


def read_options(args: Mapping[str, Any]) -> AppOptions:
    """The options of an application's arguments; the embedded model where they name none.

    Raises:
        SettingsError: an argument is unknown or cannot be used.
    """
    for name in args:
        _check_known(name)
    given = {name: value for name, value in args.items() if value is not None}
    texts = {name: _text(name, given[name]) for name in _TEXTS if name in given}
    numbers: dict[str, Any] = {
        name: _number(name, given[name], kind) for name, kind in _NUMBERS.items() if name in given
    }
    server = {
        name: setting_value(name, given[name], f"The argument {name}") for name in _SERVER if name in given
    }
    if ("bundle" in texts) != ("index" in texts):
        raise SettingsError("The arguments bundle and index go together; give both, or neither.")
    if "bundle" in texts:
        bundle, index = Path(texts["bundle"]).resolve(), Path(texts["index"]).resolve()
    else:
        embedded = embedded_model(
            Path.cwd(), Path(__file__).resolve(), otherwise="name a bundle and an index"
        )
        bundle, index = embedded / "bundle", embedded / "index"
    model = folders_of(bundle, index, texts.get("model_name"))
    options = AppOptions(Settings(**server, models=(model,)), **numbers, retrieval=texts.get("retrieval"))
    return dataclasses.replace(options, settings=_shared_out(options))


def _shared_out(options: AppOptions) -> Settings:
    """The settings with the cores that Ray reserves, in the place of all of the machine's."""
    settings, cpus = options.settings, options.cpus
    threads = settings.threads or max(1, cpus // 2)
    device = "cuda" if options.gpus and settings.device == "auto" else settings.device
    return dataclasses.replace(
        settings,
        threads=threads,
        max_concurrent_requests=settings.max_concurrent_requests or max(1, cpus // threads),
        device="cpu" if device == "auto" else device,
    )


def _check_known(name: str) -> None:
    if name in _ELSEWHERE:
        raise SettingsError(f"An application on Ray Serve takes no {name}: {_ELSEWHERE[name]}.")
    known = [*_TEXTS, *_NUMBERS, *_SERVER]
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
        raise SettingsError(f"{short_repr(name)} is no argument of the application; {hint}")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise SettingsError(f"The argument {name} is {short_repr(value)}; it must be a string.")
    return value


def _number(name: str, value: Any, kind: type[int] | type[float]) -> Any:
    """A number of a config file, or a string of the command line."""
    try:
        if isinstance(value, str) or (kind is float and type(value) is int):
            return kind(value)
    except ValueError:
        pass
    if type(value) is not kind:
        word = "a whole number" if kind is int else "a number"
        raise SettingsError(f"The argument {name} is {short_repr(value)}; it must be {word}.")
    return value
