"""An answer that came through a framework, beside the engine's own."""

from collections.abc import Sequence
from typing import Any

import pytest

from ragengine import Answer


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    """The object of ``ask --json`` without what differs from run to run."""
    return {name: value for name, value in result.items() if name != "timings_ms"}


def check_same_answer(result: dict[str, Any], expected: Answer) -> None:
    """Every token, probability and posterior is the engine's, and there is a mixture to speak of."""
    assert without_times(result) == without_times(expected.to_dict())


def check_sources(metadata: Sequence[dict[str, Any]], expected: Answer) -> None:
    """A framework's documents, by their metadata, are those that were read, with the largest share first."""
    ranked = sorted(expected.documents, key=lambda document: -(document.posterior or 0.0))
    assert [one.get("title", "") for one in metadata] == [document.title for document in ranked]
    for name, field in (("doc_score", "score"), ("prior", "prior"), ("posterior", "posterior")):
        assert [one[name] for one in metadata] == [getattr(document, field) for document in ranked]
    assert sum(one["prior"] for one in metadata) == pytest.approx(1, abs=1e-5)
    assert sum(one["posterior"] for one in metadata) == pytest.approx(1, abs=1e-5)
