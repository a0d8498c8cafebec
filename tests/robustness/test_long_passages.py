"""Passages and questions of any length stay within the limits of time and memory."""

import time
from pathlib import Path

import numpy as np
import pytest

from ragengine import Bundle, RagEngine, build_index
from ragengine.errors import DeadlineError
from ragengine.indexing.plan import memory_needed
from ragengine.indexing.training import empty_faiss_index
from ragengine.indexing.vector_sources import encoded_vectors
from tests.support.memory import peak_bytes
from tests.support.paths import WORLDFACTS

BUNDLE = WORLDFACTS / "bundle"
MEGABYTES = 1 << 20

LOAD = """
from ragengine import RagEngine, build_index

what, bundle, source, index = sys.argv[1:]
engine = RagEngine.load(bundle, index, device="cpu", threads=1) if what == "ask" else None
"""
WORK = """
if engine is None:
    build_index(source, index, bundle=bundle, factory="Flat", threads=1, device="cpu")
else:
    engine.generate("who wrote it?", num_beams=1, max_length=4)
"""


def write_tsv(path: Path, texts: list[str]) -> Path:
    rows = "".join(f"{row}\t{text}\ttitle {row}\n" for row, text in enumerate(texts))
    path.write_text("id\ttext\ttitle\n" + rows)
    return path


def peak_of(what: str, source: Path, index: Path) -> int:
    """Bytes of anonymous memory that a child takes for ``what`` at most, beyond what it had before."""
    return peak_bytes(LOAD, WORK, what, BUNDLE, source, index)


@pytest.fixture(scope="module")
def long_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five passages of 10 MB, with vectors that are given."""
    folder = tmp_path_factory.mktemp("long")
    source = write_tsv(folder / "p.tsv", ["word and sentence " * 555_000] * 5)
    np.save(folder / "v.npy", np.random.default_rng(0).normal(size=(5, 128)).astype(np.float32))
    build_index(source, folder / "index", bundle=BUNDLE, embeddings=folder / "v.npy", device="cpu")
    return folder / "index"


def test_a_short_question_about_long_passages_is_answered_in_time(long_index: Path) -> None:
    with RagEngine.load(BUNDLE, long_index, device="cpu") as engine:
        engine.generate("who wrote it?", num_beams=1, max_length=4)
        began = time.monotonic()
        answer = engine.generate("who wrote it?", num_beams=1, max_length=4)
        assert time.monotonic() - began < 10
        assert "question_truncated" in answer.flags  # which comes after the passage


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads RssAnon from /proc")
def test_long_passages_take_little_more_than_themselves(long_index: Path) -> None:
    assert peak_of("ask", long_index, long_index) < 350 * MEGABYTES  # five of 10 MB, and copies


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads RssAnon from /proc")
def test_the_bound_of_a_build_holds_for_long_passages(tmp_path: Path) -> None:
    count = 16
    source = write_tsv(tmp_path / "p.tsv", ["ordinary words of an article " * 70_000] * count)
    bundle = Bundle.open(BUNDLE)
    vectors = encoded_vectors(bundle, device="cpu", threads=1, batch_tokens=1024)
    bound = memory_needed(empty_faiss_index("Flat", 128), count, 128) + vectors.memory
    assert peak_of("build", source, tmp_path / "index") < min(bound, 400 * MEGABYTES)


def test_long_questions_end_at_their_deadline(long_index: Path) -> None:
    with RagEngine.load(BUNDLE, long_index, device="cpu") as engine:
        questions = ["\u3042" * 900_000] * 12
        began = time.monotonic()
        with pytest.raises(DeadlineError):
            engine.generate(questions, deadline=1.0)
        assert time.monotonic() - began < 5
