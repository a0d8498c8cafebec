"""One server a module, with the embedded model."""

from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from tests.support.served import Served, running


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """A server without keys."""
    with running() as served:
        yield served
