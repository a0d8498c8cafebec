"""What transformers and the hub's client write on stderr, beside an error that is one sentence there."""

import contextlib
import logging
import sys
from collections.abc import Iterator

import transformers.utils.logging


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """No progress bars of transformers, which draws them for every network that is loaded."""
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No bars, and no word about attempts to reach the hub, unless somebody looks at a terminal."""
    if sys.stderr.isatty():
        yield
        return
    hub = logging.getLogger("huggingface_hub")
    before = hub.level
    hub.setLevel(logging.ERROR)
    try:
        with without_bars():
            yield
    finally:
        hub.setLevel(before)
