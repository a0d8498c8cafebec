"""The static decoder, which CUDA graphs need, gives what the dynamic one gives, token for token.

Both run on the CPU here, the static one through the code that a GPU runs: buckets, bound buffers, a past
written in place.
"""

from __future__ import annotations

import gc
import logging
import threading
from itertools import chain
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from ragengine import Generator
from ragengine.bundle.bundle import Bundle
from ragengine.generation.decoders.buckets import Bucket, GraphNumbers, padded_source
from ragengine.generation.decoders.static import Buffer, DecoderBuffers, StaticDecoder
from ragengine.generation.model import GeneratorModel
from ragengine.results import Hypothesis
from ragengine_bench.checkpoints.rag_checkpoint import random_spec, write_checkpoint
from ragengine_bench.parity.pairs import full_options
from ragengine_export import export_checkpoint
from tests.support.paths import WORLDFACTS
from tests.support.searches import FEW_CANDIDATES, WHOLE_DISTRIBUTIONS

V, LENGTH = 700, 12
OPTIONS = FEW_CANDIDATES | WHOLE_DISTRIBUTIONS
SIZES = [(1, 1, 7), (1, 5, 33), (3, 2, 20)]
"""Q, D, S; the second and third are padded in more than one axis."""


@pytest.fixture(scope="module", params=["bart-1301", "bart-1302", "t5-1303"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("static")
    name, _, seed = request.param.partition("-")
    spec = random_spec(int(seed), model_type=name, vocab_size=V, forced_bos=False, forced_eos=False)
    checkpoint = write_checkpoint(spec, folder)
    export_checkpoint(checkpoint.source, folder / "bundle", precision="fp32", check=False)
    return Bundle.open(folder / "bundle")


@pytest.fixture(scope="module")
def dynamic(bundle: Bundle) -> Generator:
    return Generator(bundle, device="cpu")


@pytest.fixture(scope="module")
def static(bundle: Bundle) -> Generator:
    generator = Generator(bundle, device="cpu")
    generator._model = GeneratorModel(bundle, device="cpu", decoder="static")
    return generator


def contexts(sizes: tuple[int, int, int], seed: int = 0) -> tuple[Any, ...]:
    """Documents of different lengths, and scores."""
    rng = np.random.default_rng(seed)
    q, d, s = sizes
    ids = rng.integers(5, V, sizes)
    lengths = rng.integers(1, s + 1, (q, d))
    lengths[0, 0] = s
    mask = (np.arange(s) < lengths[..., None]).astype(np.int64)
    return ids, mask, rng.normal(size=(q, d)).astype(np.float32)


def decoded(generator: Generator, sizes: tuple[int, int, int], name: str, seed: int = 0) -> Any:
    allowed = (lambda question, tokens: [2, 5, 9, 11]) if name == "allowed" else None
    options = full_options(max_length=LENGTH, **OPTIONS[name])
    return generator.generate(*contexts(sizes, seed), options, prefix_allowed_tokens_fn=allowed)


def assert_same(ours: list[list[Hypothesis]], expected: list[list[Hypothesis]]) -> None:
    assert [len(found) for found in ours] == [len(found) for found in expected]
    for got, want in zip(chain(*ours), chain(*expected), strict=True):
        assert got.token_ids.tolist() == want.token_ids.tolist()
        np.testing.assert_allclose(got.score, want.score, atol=1e-4)
        np.testing.assert_allclose(got.token_log_probs, want.token_log_probs, atol=1e-4)
        np.testing.assert_allclose(got.token_posteriors, want.token_posteriors, atol=1e-4)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_token_for_token(dynamic: Generator, static: Generator, sizes: Any, name: str) -> None:
    assert_same(decoded(static, sizes, name), decoded(dynamic, sizes, name))


def test_given_outputs_have_the_same_scores(dynamic: Generator, static: Generator) -> None:
    labels = np.random.default_rng(1).integers(5, V, (3, 9))
    for sizes in SIZES:
        arrays = contexts(sizes)
        given = labels if sizes[0] in (1, 3) else labels[: sizes[0]]
        given[:, 0] = 2
        np.testing.assert_allclose(static.score(*arrays, given), dynamic.score(*arrays, given), atol=1e-4)


def test_a_stream_is_the_same_and_may_be_abandoned(dynamic: Generator, static: Generator) -> None:
    arrays, options = contexts((1, 3, 9)), full_options(max_length=LENGTH)
    expected = [token.token_id for token in dynamic.stream(*arrays, options)]
    abandoned = static.stream(*arrays, options)
    next(abandoned)
    beside = static.stream(*contexts((1, 3, 9), seed=1), options)  # interleaved with the other
    next(beside)
    assert [token.token_id for token in static.stream(*arrays, options)] == expected
    del abandoned, beside


def test_buffers_serve_search_after_search(bundle: Bundle, dynamic: Generator, static: Generator) -> None:
    """What an earlier search left in the buffers is never read."""
    decoder = static._model._decoder
    assert isinstance(decoder, StaticDecoder)
    for seed in range(4):
        assert_same(decoded(static, (1, 5, 33), "beams", seed), decoded(dynamic, (1, 5, 33), "beams", seed))
    gc.collect()
    bucket = Bucket.holding(1, 5, 4, padded_source(33, bundle.manifest.generator.longest), LENGTH - 1)
    assert len(decoder._free[bucket]) == 1


def test_threads_share_the_decoder(dynamic: Generator, static: Generator) -> None:
    sizes, found = (1, 5, 33), {}
    expected = [decoded(dynamic, sizes, "beams", seed) for seed in range(8)]

    def answer(seed: int) -> None:
        found[seed] = decoded(static, sizes, "beams", seed)

    threads = [threading.Thread(target=answer, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(8):
        assert_same(found[seed], expected[seed])


def test_graphs_are_bounded_and_more_is_said_once(
    bundle: Bundle, dynamic: Generator, caplog: pytest.LogCaptureFixture
) -> None:
    generator = Generator(bundle, device="cpu")
    generator._model = model = GeneratorModel(bundle, device="cpu", decoder="static")
    decoder = model._decoder
    assert isinstance(decoder, StaticDecoder)
    decoder.graphs = GraphNumbers(limit=2)
    with caplog.at_level(logging.WARNING, "ragengine"):
        for documents in (1, 2, 3, 4):
            sizes = (1, documents, 9)
            assert_same(decoded(generator, sizes, "beams"), decoded(dynamic, sizes, "beams"))
    gc.collect()
    assert sum(len(free) for free in decoder._free.values()) == 2  # the others were given back
    assert [record.message for record in caplog.records if "CUDA graphs" in record.message] != []
    assert len(caplog.records) == 1


def test_the_memory_of_a_bucket_is_what_it_takes(bundle: Bundle, static: Generator) -> None:
    decoder = static._model._decoder
    assert isinstance(decoder, StaticDecoder)
    bucket = Bucket(2, 3, 4, 32, 16)
    buffers = DecoderBuffers(decoder, bucket)
    values = [*buffers.cross.values(), *buffers.past.values()]
    expected = bucket.buffer_bytes(bundle.manifest.generator, np.dtype(decoder.dtype).itemsize)
    assert sum(value.tensor_size_in_bytes() for value in values) == expected


def test_a_buffer_keeps_its_arrays_apart() -> None:
    """Every array starts at an aligned place, and comes back from the device as it was sent."""
    layout = {"a": ((3, 5), np.int64), "b": ((7,), np.bool_), "c": ((2, 2), np.float32)}
    buffer = Buffer(layout, "cpu")
    rng = np.random.default_rng(0)
    sent = {name: rng.integers(0, 2, shape).astype(dtype) for name, (shape, dtype) in layout.items()}
    for name, array in sent.items():
        buffer.arrays[name][:] = array
    buffer.upload()
    buffer.download()
    for name, array in sent.items():
        np.testing.assert_array_equal(buffer.arrays[name], array)
        assert buffer.arrays[name].dtype == array.dtype


def test_the_step_of_an_older_bundle_is_as_good() -> None:
    """That of worldfacts takes its candidates from the whole vocabulary at once, and lacks an input."""
    bundle = Bundle.open(WORLDFACTS / "bundle")
    session = ort.InferenceSession(
        str(bundle.file("generator", "step.onnx")), providers=["CPUExecutionProvider"]
    )
    assert "part_candidates" not in {value.name for value in session.get_inputs()}
    dynamic, static = (Generator(bundle, device="cpu") for _ in range(2))
    static._model = GeneratorModel(bundle, device="cpu", decoder="static")
    options = full_options(num_beams=4, num_return_sequences=4, max_length=10)
    assert_same(*(g.generate(*contexts((2, 3, 20)), options) for g in (static, dynamic)))
