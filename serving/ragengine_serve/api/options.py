"""Generation options in a request: the names of :class:`ragengine.GenerationOptions`, within the limits."""

import dataclasses
import functools
import operator
import types
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

from ragengine import GenerationOptions
from ragengine.errors import RagEngineError
from ragengine.options import OPTION_NAMES
from ragengine_serve.configuration.settings import Settings
from ragengine_serve.errors import ApiError
from ragengine_serve.http.replies import api_error
from ragengine_serve.models.served_model import ServedModel

Item = TypeVar("Item")
Several: TypeAlias = Annotated[list[Item], Field(fail_fast=True)]
"""A list in a request.  Its first wrong item is its only error: to tell of all would hold the server up."""


class Strict(BaseModel):
    """A JSON object without other names than its own, whose numbers are numbers and texts texts."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _json_type(hint: Any) -> Any:
    """The type of an option as JSON has it: lists for tuples, finite numbers."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        parts = [_json_type(part) for part in get_args(hint)]
        return functools.reduce(operator.or_, parts)
    if origin is tuple:
        return Several[_json_type(get_args(hint)[0])]  # type: ignore[misc]  # a type made at run time
    return hint


def _summaries() -> dict[str, str]:
    """What the docstring of :class:`GenerationOptions` says of each option, in the form of one line."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in (GenerationOptions.__doc__ or "").splitlines():
        head, _, rest = line.strip().partition("  ")
        words = [word.strip() for word in head.split(",")]
        if words and all(word in OPTION_NAMES for word in words):
            names = words
            found |= dict.fromkeys(names, rest.strip())
        elif names and line.startswith(" " * 20):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            names = []
    return found


_MOST_TOKENS = 1000
"""Entries of an option that lists tokens: each is compared with every beam at every step."""
_HINTS = get_type_hints(GenerationOptions)
_HELP = _summaries()

_Options: type[Strict] = create_model(
    "_Options",
    __base__=Strict,
    **{
        spec.name: (
            _json_type(_HINTS[spec.name]) | None,
            Field(None, description=_HELP.get(spec.name), json_schema_extra={"default": None}),
        )
        for spec in dataclasses.fields(GenerationOptions)
    },  # type: ignore[call-overload]  # fields made at run time
)


class Options(_Options):  # type: ignore[valid-type,misc]  # a class made at run time
    """Generation options by name, as ``/info`` lists them; the model's own where one is not given."""


def chosen_options(given: Mapping[str, Any], model: ServedModel, settings: Settings) -> GenerationOptions:
    """The options of a request.

    Raises:
        ApiError: 400, options that are wrong, do not fit the model, or are beyond the server's limits.
    """
    named = {name: value for name, value in given.items() if name in OPTION_NAMES and value is not None}
    for name, value in named.items():
        if (count := _items(value)) > _MOST_TOKENS:
            raise ApiError(
                400,
                "over_limit",
                f"{name} has {count} entries, and this server takes at most {_MOST_TOKENS}; give fewer.",
                name,
            )
    try:
        options = model.engine.default_options.replace(**named)
        model.engine.generator.check_options(options)
    except RagEngineError as error:
        raise api_error(error, tuple(named)) from error
    for name, value, limit in (
        ("n_docs", options.n_docs, settings.max_n_docs),
        ("num_beams", options.num_beams, settings.max_num_beams),
        ("num_return_sequences", options.num_return_sequences, settings.max_num_beams),
        ("prompt_lookup_num_tokens", options.prompt_lookup_num_tokens or 0, settings.max_num_beams),
        ("max_new_tokens", options.longest - 1, settings.max_new_tokens),
    ):
        if value > limit:
            raise ApiError(
                400,
                "over_limit",
                f"{name} is {value}, and this server allows at most {limit}; ask for less.",
                name,
            )
    return options


def _items(value: Any) -> int:
    """The entries of a list and of the lists in it."""
    if not isinstance(value, list):
        return 0
    return len(value) + sum(len(inner) for inner in value if isinstance(inner, list))
