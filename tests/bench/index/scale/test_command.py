"""`ragengine bench scale`: an index is built, killed twice, resumed and searched; the report says so."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ragengine_bench.index.scale.command import scale_bench

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads RssAnon from /proc"),
]


def test_a_small_run(tmp_path: Path) -> None:
    work, output = tmp_path / "work", tmp_path / "out"
    arguments = [
        "--vectors",
        "60000",
        "--dimension",
        "16",
        "--queries",
        "50",
        "--threads",
        "1",
        "--seed",
        "3",
    ]
    result = CliRunner().invoke(scale_bench, [*arguments, "--work", str(work), "--output", str(output)])
    assert result.exit_code == 0, result.output
    report = json.loads((output / "report.json").read_text())
    assert [kill["phase"] for kill in report["build"]["kills"]] == ["vectors", "add"]
    assert all(0 <= kill["resumed_at"] <= kill["done"] for kill in report["build"]["kills"])
    phases = [phase["name"] for phase in report["build"]["phases"]]
    assert phases == ["start", "passages", "vectors", "train", "add", "exact", "tune", "files"]
    assert 1 << 20 < report["peak_anonymous"] < 1 << 30
    assert report["search"]["recall"] > 0.9
    assert report["bytes_per_vector"]["vectors.npy"] == pytest.approx(32, abs=0.1)
    assert "killed in add" in result.output
    assert not work.exists()
