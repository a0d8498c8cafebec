"""An engine over a changed bundle answers with finite numbers, or the bundle is refused."""

from __future__ import annotations

import math
from pathlib import Path

from ragengine import RagEngine
from tests.support.paths import GOLDEN

QUESTIONS = ["who wrote it ?", "where is the capital of iceland ?"]


def check_engine(bundle: Path, index: Path = GOLDEN / "index_v1") -> None:
    """Load an engine and ask it; raises :class:`AssertionError` for an invalid answer."""
    with RagEngine.load(bundle, index=index, device="cpu", threads=1, verify="size") as engine:
        for options in ({"num_beams": 2, "max_length": 6}, {"marginalize": "sequence", "num_beams": 1}):
            for answer in engine.generate(QUESTIONS, **{"n_docs": 2, "max_length": 5, **options}):
                answer.text.encode("utf-8")
                assert math.isfinite(answer.score), answer
                scores = [document.score for document in answer.documents]
                assert all(score is not None and math.isfinite(score) for score in scores), answer
                for hypothesis in answer.hypotheses:
                    assert math.isfinite(hypothesis.score), answer
        assert not math.isnan(engine.score(QUESTIONS[0], "an answer"))
