"""The embedded model, for tests that also run in environments that hold ragengine and one framework alone."""

from collections.abc import Iterator

import pytest

from ragengine import RagEngine
from tests.support.paths import WORLDFACTS

BUNDLE, INDEX = str(WORLDFACTS / "bundle"), str(WORLDFACTS / "index")
QUESTION = "Which time zone do clocks in Lizhi follow?"
TEXT = "Asia/Shanghai"


@pytest.fixture(scope="session")
def engine() -> Iterator[RagEngine]:
    """The engine that the adapters' answers are compared with."""
    with RagEngine.load(BUNDLE, index=INDEX, device="cpu", threads=1, verify="size") as loaded:
        yield loaded
