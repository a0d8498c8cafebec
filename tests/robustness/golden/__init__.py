"""Bundles and indexes as earlier versions wrote them."""

from tests.support.paths import GOLDEN

ANSWERS = GOLDEN / "answers.json"
"""What the engine of that version answered."""
