"""`ragengine bench ray-rag`: all designs find the same documents, and the report has a cell of each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ragengine.indexing.build import build_index
from tests.support.bundles import E, random_vectors, write_bundle

pytestmark = pytest.mark.ray

COUNT = 300


@pytest.fixture
def index(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle", E)
    lines = [json.dumps({"text": f"text {row}"}) for row in range(COUNT)]
    (tmp_path / "passages.jsonl").write_text("\n".join(lines), "utf-8")
    np.save(tmp_path / "vectors.npy", random_vectors(COUNT))
    build_index(
        tmp_path / "passages.jsonl",
        tmp_path / "index",
        bundle=tmp_path / "bundle",
        embeddings=tmp_path / "vectors.npy",
        factory="IVF4,Flat",
        threads=1,
    )
    return tmp_path / "index"


def test_a_small_run(index: Path, tmp_path: Path) -> None:
    """The command fails where a design finds other documents than the index that is opened here."""
    from ragengine_bench.ray_rag.command import ray_rag_bench

    np.save(tmp_path / "questions.npy", random_vectors(20, seed=5))
    output, work = tmp_path / "out", tmp_path / "work"
    arguments = ["--index", str(index), "--questions", str(tmp_path / "questions.npy"), "--work", str(work)]
    arguments += ["--output", str(output), "--rounds", "1", "--calls", "4", "--workers", "2"]
    done = CliRunner().invoke(
        ray_rag_bench, [*arguments, "--processes", "1", "--processes", "2"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    report = json.loads((output / "report.json").read_text())
    assert report["index"]["count"] == COUNT
    cells = {(cell["design"], cell["workers"], cell["processes"]): cell for cell in report["cells"]}
    designs = [("mapped", 0), ("shard actors", 2), ("whole-index actors", 2), ("first rank", 0)]
    assert list(cells) == [(*design, processes) for design in designs for processes in (1, 2)]
    for (_, workers, processes), cell in cells.items():
        (seconds,), (trainers,), (searchers,) = cell["seconds"], cell["trainers"], cell["searchers"]
        assert len(seconds) == 4 * processes
        assert min(seconds) > 0
        assert (len(trainers), len(searchers)) == (processes, workers)
    assert not list(work.iterdir())


def test_shards_of_each_number_of_actors(index: Path) -> None:
    """An index that was divided for two actors is divided again for three."""
    from ragengine.retrieval.sharding.manifest import ShardsManifest
    from ragengine_ray.shard_actors import _Divider

    for shards in (2, 3, 2):
        folder = _Divider().divide(str(index), shards)
        assert len(ShardsManifest.read(folder).shards) == shards
