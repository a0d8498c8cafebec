"""A small part of worldfacts, calibrated once for the tests of this folder."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from ragengine import CalibrationReport, calibrate
from ragengine.confidence.model import CALIBRATION
from tests.support.paths import WORLDFACTS

BUNDLE = WORLDFACTS / "bundle"
ERROR_RATE = 0.3
"""So few questions allow no smaller one."""


@dataclass(frozen=True)
class Calibrated:
    """A copy of worldfacts' index, calibrated with few questions; tests copy it before they change it."""

    index: Path
    questions: Path
    test: Path
    report: CalibrationReport


def copied(index: Path, folder: Path) -> Path:
    """A copy of an index that a test may change."""
    return Path(shutil.copytree(index, folder / "index"))


@pytest.fixture(scope="package")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Calibrated:
    folder = tmp_path_factory.mktemp("calibrated")
    index = copied(WORLDFACTS / "index", folder)
    (index / CALIBRATION).unlink(missing_ok=True)
    lines = (WORLDFACTS / "questions.jsonl").read_text("utf-8").splitlines()[:70]
    without = (WORLDFACTS / "questions_unanswerable.jsonl").read_text("utf-8").splitlines()[:30]
    parts = {"dev": [*lines[:48], *without[:20]], "test": [*lines[48:], *without[20:]]}
    paths = {}
    for name, part in parts.items():
        assert all(json.loads(line)["question"] for line in part)
        paths[name] = folder / f"{name}.jsonl"
        paths[name].write_text("\n".join(part) + "\n", "utf-8")
    report = calibrate(
        BUNDLE, index, paths["dev"], test=paths["test"], error_rate=ERROR_RATE, device="cpu", threads=1
    )
    return Calibrated(index, paths["dev"], paths["test"], report)
