"""The embedded model, for tests that also run in environments that hold ragengine and one framework alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ragengine import RagEngine, build_index
from tests.support.paths import WORLDFACTS

BUNDLE, INDEX = str(WORLDFACTS / "bundle"), str(WORLDFACTS / "index")
QUESTION = "Which time zone do clocks in Lizhi follow?"
TEXT = "Asia/Shanghai"
FACTS = {"owner": "data", "page": "3"}
"""What the passage of ``owned_index`` has beside its title and text."""


@pytest.fixture(scope="session")
def engine() -> Iterator[RagEngine]:
    """The engine that the adapters' answers are compared with."""
    with RagEngine.load(BUNDLE, index=INDEX, device="cpu", threads=1, verify="size") as loaded:
        yield loaded


@pytest.fixture(scope="session")
def owned_index(engine: RagEngine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An index of the passage that answers QUESTION, with metadata, some under names that adapters use."""
    (best,) = engine.retrieve(QUESTION, 1)
    folder: Path = tmp_path_factory.mktemp("owned") / "index"
    passage = {"id": "a", "title": best.title, "text": best.text, **FACTS, "prior": "high", "doc_score": "x"}
    build_index([passage], folder, bundle=BUNDLE, device="cpu", threads=1)
    return str(folder)


@pytest.fixture(scope="session")
def owned(owned_index: str) -> Iterator[RagEngine]:
    """An engine with ``owned_index``."""
    with RagEngine.load(BUNDLE, index=owned_index, device="cpu", threads=1, verify="size") as loaded:
        yield loaded
