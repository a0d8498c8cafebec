"""One bundle and one index of each format version, by the version that wrote it, and what it answered."""

from pathlib import Path

GOLDEN = Path(__file__).parent
ANSWERS = GOLDEN / "answers.json"
