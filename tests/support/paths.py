"""Paths in a clone of the repository."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
WORLDFACTS = ROOT / "examples" / "worldfacts"
GOLDEN = ROOT / "tests" / "robustness" / "golden"
"""Bundles and indexes as earlier versions wrote them."""
