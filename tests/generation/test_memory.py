"""A memory limit: what does not fit is refused with numbers, what fits gives the same answers."""

from typing import Any

import numpy as np
import pytest

from ragengine import Generator
from ragengine.bundle.bundle import Bundle
from ragengine.bundle.manifest import GeneratorSpec, TokenizerSpec
from ragengine.errors import InputError, MemoryLimitError
from ragengine.generation import memory
from ragengine.generation.memory import (
    check_weights_fit,
    questions_at_once,
    questions_that_fit,
    working_bytes,
)
from ragengine.runtime.memory import resident_bytes
from ragengine_bench.parity.pairs import Pair

QUESTIONS = 6


SPEC = GeneratorSpec("generator", 2, 3, 4, 50, 64, 1, 0, TokenizerSpec(1, 64, False))
ENCODER, DOCUMENTS = 4 * 300 * 16 * 12, 4 * 5 * 300 * 48
STEPS = 4 * 5 * (2 * (4 * 20 + 16) * 48 + 3 * 4 * 50)
"""Past and present, which are kept in sixteens, and a step's distributions."""
ONE = STEPS + DOCUMENTS
SIZES = (5, 300, 4, 20)
"""5 documents of 300 tokens, 4 beams of 20 tokens: 48 numbers for the keys and values of each token."""


def test_the_bytes_of_a_question_are_its_arrays() -> None:
    assert (SPEC.num_decoder_layers, SPEC.num_heads, SPEC.head_size, SPEC.vocab_size) == (2, 3, 4, 50)
    assert working_bytes(SPEC, *SIZES) == ONE


@pytest.mark.parametrize(
    ("room", "count"),
    [
        (ONE, 1),
        (ONE + DOCUMENTS, 1),
        (2 * (ONE + DOCUMENTS) - 1, 1),
        (2 * (ONE + DOCUMENTS), 2),
        (10**8, 10**8 // (ONE + DOCUMENTS)),
    ],
)
def test_questions_that_a_limit_has_room_for(monkeypatch: pytest.MonkeyPatch, room: int, count: int) -> None:
    """Beside the encoder's batch: a question's arrays, and its documents' once more."""
    monkeypatch.setattr(memory, "resident_bytes", lambda: 1000)
    monkeypatch.setattr(memory, "release_free_memory", lambda: released.append(1))
    released: list[int] = []
    assert questions_at_once(SPEC, 1000 + ENCODER + room, *SIZES) == count
    assert released == []
    with pytest.raises(MemoryLimitError, match=r"process has 0 MB, and one question with 5 documents of 300"):
        questions_at_once(SPEC, 1000 + ENCODER + ONE - 1, *SIZES)
    assert released == [1]
    short = (5, 100, 4, 20)  # the encoder's batch is of 256 tokens at least
    one = working_bytes(SPEC, *short)
    assert questions_at_once(SPEC, 1000 + 4 * 256 * 16 * 12 + one, *short) == 1
    with pytest.raises(MemoryLimitError):
        questions_at_once(SPEC, 1000 + 4 * 256 * 16 * 12 + one - 1, *short)


def test_questions_that_the_machine_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    together, free = ONE + DOCUMENTS, [0]
    monkeypatch.setattr(memory, "_ALWAYS_THERE", 3 * together)
    monkeypatch.setattr(memory, "available_memory", lambda: free[-1])

    def fit(questions: int, bytes_free: int | None) -> int:
        free.append(bytes_free)
        return questions_that_fit(SPEC, questions, *SIZES)

    assert [fit(questions, 0) for questions in (1, 3)] == [1, 3]  # not looked for
    assert fit(4, None) == 4
    assert [fit(9, n * together) for n in (2, 3, 4, 8, 17, 18, 40)] == [1, 1, 2, 4, 8, 9, 9]
    assert fit(9, ONE) == 1
    with pytest.raises(
        MemoryLimitError, match=r"One question with 5 documents of 300 tokens, 4 beams and 20"
    ):
        fit(9, ONE - 1)
    monkeypatch.setattr(memory, "_ALWAYS_THERE", ONE)
    assert fit(1, 0) == 1
    monkeypatch.setattr(memory, "_ALWAYS_THERE", ONE - 1)
    with pytest.raises(MemoryLimitError, match=r"may need 0 MB, 0 MB can be had here"):
        fit(1, 0)


@pytest.mark.parametrize("limit", [True, 1.5, "1 GB", 2**63, 10**400])
def test_a_limit_is_a_number_of_bytes(pair: Pair, limit: Any) -> None:
    with pytest.raises(InputError, match=r"memory_limit is .*; it must be a whole number of bytes, or None"):
        check_weights_fit(Bundle.open(pair.bundle), limit)


def test_weights_fit_to_the_byte(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Bundle.open(pair.bundle)
    manifest = opened.manifest
    folders = {manifest.question_encoder.path, manifest.generator.path}
    weights = sum(manifest.files[f"{folder}/weights.bin"].size for folder in folders)
    released: list[int] = []
    monkeypatch.setattr(memory, "release_free_memory", lambda: released.append(1))
    monkeypatch.setattr(memory, "resident_bytes", lambda: 1000)
    check_weights_fit(opened, 1000 + weights)
    assert released == []
    with pytest.raises(MemoryLimitError, match=r"raise the limit, or export the bundle"):
        check_weights_fit(opened, 999 + weights)
    assert released == [1]
    monkeypatch.setattr(memory, "resident_bytes", lambda: 1000 - 500 * len(released))
    released.clear()
    check_weights_fit(opened, 999 + weights)  # after what is free was given back
    assert released == [1]


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
