"""What the sentence-transformers library makes of the folders of :mod:`tests.support.sentence_folders`."""

from pathlib import Path

RECORDED = Path(__file__).parent / "recorded.json"
