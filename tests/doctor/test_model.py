"""A bundle or an index that is not whole is a reason why no question can be answered."""

import shutil
from pathlib import Path

import pytest

from ragengine.doctor import diagnose
from ragengine_bench.parity.pairs import Pair


@pytest.mark.parametrize(
    ("arguments", "reasons"),
    [
        (["nowhere"], ["nowhere is not a folder"]),
        (["{bundle}", "nowhere"], ["nowhere is not a folder"]),
        (["{index}", "{bundle}"], ["says format 'ragengine-index'", "says format 'ragengine-bundle'"]),
    ],
)
def test_wrong_folders_are_reasons(pair: Pair, arguments: list[str], reasons: list[str]) -> None:
    index = pair.bundle.parent / "index"
    paths = [Path(part.format(bundle=pair.bundle, index=index)) for part in arguments]
    found = diagnose(*paths, device="cpu").reasons
    assert len(found) == len(reasons)
    assert all(part in reason for part, reason in zip(reasons, found, strict=True))


def test_a_damaged_graph_is_a_reason(pair: Pair, tmp_path: Path) -> None:
    bundle = shutil.copytree(pair.bundle, tmp_path / "bundle")
    weights = bundle / "generator" / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    (reason,) = diagnose(bundle, device="cpu").reasons
    assert "generator/weights.bin" in reason
