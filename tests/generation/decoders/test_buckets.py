"""Buckets hold what they are made for, few serve many searches, and graphs are numbered up to a limit."""

import logging
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.bundle.manifest import GeneratorSpec, TokenizerSpec
from ragengine.bundle.signatures import array_of, generator_signatures, layer_names, memory_values
from ragengine.generation.decoders.buckets import (
    NOT_CAPTURED,
    SOURCE_MULTIPLE,
    STEPS_MULTIPLE,
    Bucket,
    GraphNumbers,
    padded_source,
    power_of_two,
)

COUNTS = st.integers(1, 5000)


@given(COUNTS)
def test_the_smallest_power_of_two(number: int) -> None:
    power = power_of_two(number)
    assert power.bit_count() == 1
    assert power // 2 < number <= power


@given(COUNTS, COUNTS)
def test_a_source_is_padded_to_a_multiple_within_the_model(length: int, longest: int) -> None:
    padded = padded_source(length, longest)
    assert padded == longest or padded % SOURCE_MULTIPLE == 0
    assert min(length, longest) <= padded < length + SOURCE_MULTIPLE


@given(COUNTS, st.integers(1, 64), st.integers(1, 64), st.integers(1, 1024), COUNTS)
def test_a_bucket_holds_its_search(q: int, d: int, b: int, s: int, t: int) -> None:
    bucket = Bucket.holding(q, d, b, s, t)
    assert q <= bucket.questions < 2 * q or q == bucket.questions == 1
    assert (bucket.documents, bucket.source) == (d, s)
    assert b <= bucket.beams < b + 4
    assert t <= bucket.steps < t + STEPS_MULTIPLE
    assert bucket.capacity >= b * t
    assert bucket == Bucket.holding(bucket.questions, d, bucket.beams, s, bucket.steps)


def test_the_sizes_of_a_bucket() -> None:
    bucket = Bucket.holding(3, 5, 6, 160, 19)
    assert bucket.sizes == {"Q": 4, "D": 5, "Q*D": 20, "B": 8, "S": 160, "P": 256}
    spec = GeneratorSpec("generator", 3, 4, 16, 1000, 512, 1, 0, TokenizerSpec(1, 300, False))
    inputs = generator_signatures(spec, 1)["step.onnx"].inputs
    names = [*memory_values(spec, 1), *layer_names("past", spec)]
    shapes = [array_of(inputs[name], bucket.sizes)[0] for name in names]
    numbers = sum(a * b * c * d for a, b, c, d in shapes)
    assert bucket.buffer_bytes(spec, 2) == 2 * numbers


def test_numbers_end_at_the_limit_and_that_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    numbers, bucket = GraphNumbers(limit=2), Bucket(1, 1, 1, 32, 16)
    with caplog.at_level(logging.WARNING, "ragengine"):
        assert [numbers.take(bucket) for _ in range(4)] == [1, 2, NOT_CAPTURED, NOT_CAPTURED]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "All 2 CUDA graphs" in caplog.text


def test_threads_get_different_numbers() -> None:
    numbers, bucket = GraphNumbers(limit=400), Bucket(1, 1, 1, 32, 16)
    taken: list[int] = []
    threads = [
        threading.Thread(target=lambda: taken.extend(numbers.take(bucket) for _ in range(50)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(1, 401))
