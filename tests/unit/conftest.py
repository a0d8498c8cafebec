"""Settings and fixtures of the unit tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

from ragengine.retrieval.build import build_index
from tests.unit.bundles import Array, E, write_bundle

# Machines that run the tests are shared: how long an example takes says nothing about the code.
hypothesis.settings.register_profile(
    "ragengine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("ragengine")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", E)


@pytest.fixture
def build(tmp_path: Path, bundle: Path) -> Callable[..., Path]:
    """Build an index of numbered passages with given vectors."""

    def build_from(vectors: Array, count: int | None = None, **options: Any) -> Path:
        lines = [
            json.dumps({"id": f"id{row}", "title": f"title {row}", "text": f"text {row}"})
            for row in range(len(vectors) if count is None else count)
        ]
        (tmp_path / "passages.jsonl").write_text("\n".join(lines))
        np.save(tmp_path / "vectors.npy", vectors)
        options = {"bundle": bundle, "embeddings": tmp_path / "vectors.npy", **options}
        build_index(tmp_path / "passages.jsonl", tmp_path / "index", **options)
        return tmp_path / "index"

    return build_from
