"""A memory limit: what does not fit is refused with numbers, what fits gives the same answers."""

import numpy as np
import pytest

from ragengine import Generator
from ragengine.errors import MemoryLimitError
from ragengine.generation import memory
from ragengine.generation.memory import questions_at_once, working_bytes
from ragengine.runtime.memory import resident_bytes
from ragengine_bench.parity.pairs import Pair

QUESTIONS = 6


def test_few_at_a_time_answer_as_all_together(pair: Pair) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(4, 40, (QUESTIONS, 20, 40))
    arrays = ids, np.ones_like(ids), rng.normal(size=(QUESTIONS, 20)).astype(np.float32)
    free = Generator.load(pair.bundle, device="cpu")
    spec = free.bundle.manifest.generator
    options = free.default_options.replace(num_beams=20, max_length=60, do_sample=True, seed=5)
    assert options.longest <= spec.max_positions
    expected = free.generate(*arrays, options)
    asked: list[int] = []

    def allowed(question: int, tokens: np.ndarray) -> range:
        asked.append(question)
        return range(spec.vocab_size)

    limited = Generator.load(pair.bundle, device="cpu", memory_limit=1 << 40)
    limited.generate(*arrays, options)  # what it keeps for the next time is there

    # room for some questions and not for all, whatever this process holds by now
    room = int((QUESTIONS - 1.5) * working_bytes(spec, 20, 40, 20, 60))
    limit = resident_bytes() + room + 4 * 256 * 16 * spec.num_heads * spec.head_size
    assert 0 < questions_at_once(spec, limit, 20, 40, 20, 60) < QUESTIONS
    limited.memory_limit = limit
    found = limited.generate(*arrays, options)
    assert [h[0].token_ids.tolist() for h in found] == [h[0].token_ids.tolist() for h in expected]
    few = options.replace(num_beams=2, max_length=4)
    limited.generate(*arrays, few, prefix_allowed_tokens_fn=allowed)
    assert set(asked) == set(range(QUESTIONS))  # questions are counted through, not from 0 in each part


def test_the_number_of_questions_follows_the_limit(pair: Pair) -> None:
    spec = Generator.load(pair.bundle, device="cpu").bundle.manifest.generator
    one = working_bytes(spec, 5, 100, 4, 20)
    memory.release_free_memory()  # or it would be, and there would be room
    used = resident_bytes()
    assert questions_at_once(spec, used + 100 * one + 2**26, 5, 100, 4, 20) >= 100
    with pytest.raises(MemoryLimitError, match=r"memory_limit is .* 5 documents of 100 tokens"):
        questions_at_once(spec, used, 5, 100, 4, 20)


def test_memory_that_is_free_in_the_heap_refuses_no_question(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Generator.load(pair.bundle, device="cpu").bundle.manifest.generator
    one = working_bytes(spec, 5, 100, 4, 20)
    used = [10 * one + 2**26]
    monkeypatch.setattr(memory, "resident_bytes", lambda: used[-1])
    monkeypatch.setattr(memory, "release_free_memory", lambda: used.append(0))
    assert questions_at_once(spec, 10 * one + 2**26, 5, 100, 4, 20) >= 10


def test_weights_that_do_not_fit_are_refused_before_they_are_loaded(pair: Pair) -> None:
    with pytest.raises(MemoryLimitError, match=r"memory_limit is 10 MB; .* the weights of .* int8 or int4"):
        Generator.load(pair.bundle, device="cpu", memory_limit=10 * 10**6)


def test_need_grows_with_every_size(pair: Pair) -> None:
    spec = Generator.load(pair.bundle, device="cpu").bundle.manifest.generator
    base = (5, 100, 4, 20)
    for place in range(4):
        larger = list(base)
        larger[place] += 1
        assert working_bytes(spec, *larger) > working_bytes(spec, *base)
