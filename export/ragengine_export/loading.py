"""Calling transformers' loaders: whatever they raise becomes one sentence."""

import os
from collections.abc import Callable
from typing import TypeVar

from ragengine.errors import ExportError

Loaded = TypeVar("Loaded")


def loaded(source: str, load: Callable[[str], Loaded]) -> Loaded:
    """Call a transformers loader; its exceptions become one sentence.

    There is no list of them: safetensors, tokenizers and huggingface_hub have types of their own, and some
    are a bare ``Exception``.
    """
    try:
        return load(source)
    except Exception as reason:
        place = "folder" if os.path.exists(source) else "folder or hub name"  # noqa: PTH110  # Path.exists raises for some
        raise ExportError(
            f"{source} is not a {place} transformers can load: {first_sentence(reason)}"
        ) from reason


def first_sentence(reason: BaseException) -> str:
    """The first line of a message, and those after it where it ends in a colon: they say what it is about."""
    lines = [line.strip() for line in str(reason).splitlines() if line.strip()]
    if not lines:
        return type(reason).__name__
    return " ".join(lines) if lines[0].endswith(":") else lines[0]
