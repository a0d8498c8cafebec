"""What only a GPU can show: the graphs there give Hugging Face's answers, the step is captured, nothing falls
back to the CPU in silence, and threads may share it all.
"""

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from ragengine import Generator
from ragengine.bundle.bundle import Bundle
from ragengine.bundle.manifest import STEP_GRAPH
from ragengine.errors import DeviceError
from ragengine.generation.decoders.static import StaticDecoder
from ragengine.indexing import training
from ragengine.retrieval.gpu.searcher import faiss_build
from ragengine.retrieval.vector_index import VectorIndex, place
from ragengine.runtime.cuda_driver import read_driver
from ragengine.runtime.progress import silent
from ragengine_bench.index.synthetic_vectors import Clusters
from ragengine_bench.parity.pairs import Pair, full_dict, full_options
from ragengine_bench.parity.requests import Request
from ragengine_export import export_checkpoint
from tests.support.comparison import Comparison

pytestmark = pytest.mark.gpu

DEVICE: Any = "cuda"
SEARCHES: list[dict[str, Any]] = [
    {"num_beams": 1, "max_length": 12},
    {"num_beams": 4, "num_return_sequences": 4, "max_length": 16},
    {"num_beams": 3, "max_length": 14, "min_length": 6, "no_repeat_ngram_size": 2},
]
DOCUMENTS = 4
HALF_TOLERANCE = 0.1  # of a log-probability; logits of these models have a deviation of about 3


@pytest.fixture(scope="module")
def bundles(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    half = tmp_path_factory.mktemp("half") / "bundle"
    export_checkpoint(pair.checkpoint.source, half, "fp16", check=False)
    return {"fp32": pair.bundle, "fp16": half}


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def generator(request: pytest.FixtureRequest, bundles: dict[str, Path]) -> Generator:
    return Generator.load(bundles[request.param], device=DEVICE)


def contexts(pair: Pair, questions: int, number: int = 0) -> tuple[Any, Any, Any]:
    found: tuple[Any, Any, Any] = pair.reference.contexts(pair.questions(number, questions), DOCUMENTS)
    return found


def tokens(generator: Generator, arrays: Any, **options: Any) -> list[list[list[int]]]:
    ids, mask, scores = arrays
    found = generator.generate(ids, mask, scores, full_options(**options))
    return [[hypothesis.token_ids.tolist() for hypothesis in hypotheses] for hypotheses in found]


def static_decoder(generator: Generator) -> StaticDecoder:
    decoder = generator._model._decoder
    assert isinstance(decoder, StaticDecoder)
    return decoder


@pytest.mark.parametrize("options", SEARCHES, ids=str)
@pytest.mark.parametrize("kind", ["token", "sequence"])
def test_fp32_gives_the_answers_of_hugging_face(
    pair: Pair, bundles: dict[str, Path], kind: str, options: dict[str, Any]
) -> None:
    """Tokens, and log-probabilities to 1e-4, for questions of different lengths together."""
    generator = Generator.load(bundles["fp32"], device=DEVICE)
    arrays = contexts(pair, 3)
    reference = pair.reference if kind == "token" else pair.sequence_reference
    expected = reference.decode(*arrays, full_dict(**options))
    ids, mask, scores = arrays
    found = generator.generate(ids, mask, scores, full_options(marginalize=kind, **options))
    comparison = Comparison(kind, pair, Request(3, options))
    for hypotheses, answer in zip(found, expected, strict=True):
        comparison.compare_hypotheses(hypotheses, answer)


def test_fp16_is_near_fp32(pair: Pair, bundles: dict[str, Path]) -> None:
    """Every token's log-probability under every document, for given outputs."""
    ids, mask, scores = contexts(pair, 2)
    labels = np.random.default_rng(0).integers(5, 300, (2, 12))
    labels[:, 0] = 2
    ours, exact = (
        Generator.load(bundles[precision], device=device).forward(ids, mask, scores, labels)
        for precision, device in (("fp16", DEVICE), ("fp32", "cpu"))
    )
    difference = np.abs(ours.document_log_probs - exact.document_log_probs).max()
    assert 0 < difference < HALF_TOLERANCE


def test_the_step_is_captured_once_and_replayed_on_new_inputs(pair: Pair, generator: Generator) -> None:
    """Search after search in one captured graph gives what an engine without graphs gives."""
    without = Generator.load(generator.bundle, device=DEVICE, cuda_graphs=False)
    decoder = static_decoder(generator)
    for number in range(4):
        arrays = contexts(pair, 1, number)
        arrays = tuple(array[..., :32] if array.ndim == 3 else array for array in arrays)  # one bucket
        assert tokens(generator, arrays, **SEARCHES[1]) == tokens(without, arrays, **SEARCHES[1])
        gc.collect()  # the search gives its workspace back
        assert [len(free) for free in decoder._free.values()] == [1]
    assert all(workspace.is_captured for free in decoder._free.values() for workspace in free)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_no_node_of_the_step_is_on_the_cpu(bundles: dict[str, Path], precision: str) -> None:
    """onnxruntime itself refuses the session if one were."""
    bundle = Bundle.open(bundles[precision])
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    path = str(bundle.file(bundle.manifest.generator.path, STEP_GRAPH))
    session = ort.InferenceSession(path, options, providers=["CUDAExecutionProvider"])
    assert session.get_providers()[0] == "CUDAExecutionProvider"


def test_a_bundle_for_the_cpu_is_refused(pair: Pair, tmp_path: Path) -> None:
    export_checkpoint(pair.checkpoint.source, tmp_path / "int8", "int8", check=False)
    with pytest.raises(DeviceError, match="int8, which only a CPU computes"):
        Generator.load(tmp_path / "int8", device=DEVICE)
    assert Generator.load(tmp_path / "int8", device="auto").device == "cpu"


def test_without_a_visible_device_cuda_is_refused(bundles: dict[str, Path]) -> None:
    code = "import sys; from ragengine import Generator; Generator.load(sys.argv[1], device='cuda')"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code, str(bundles["fp16"])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "DeviceError" in done.stderr.splitlines()[-1]


def test_threads_share_a_generator(pair: Pair, generator: Generator) -> None:
    """Different questions at once, each with the answer that it has alone."""
    arrays = [contexts(pair, 1, number) for number in range(8)]
    expected = [tokens(generator, one, **SEARCHES[1]) for one in arrays]
    found: dict[int, Any] = {}

    def answer(number: int) -> None:
        for _ in range(5):
            found[number] = tokens(generator, arrays[number], **SEARCHES[1])
            assert found[number] == expected[number]

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(8)] == expected


def test_memory_is_given_back(pair: Pair, bundles: dict[str, Path]) -> None:
    """Loading, answering and letting go again and again needs no more than the first time."""
    left = []
    for _ in range(4):
        generator = Generator.load(bundles["fp16"], device=DEVICE)
        tokens(generator, contexts(pair, 2), **SEARCHES[1])
        generator.close()
        left.append(read_driver().devices[0].free_bytes)
    assert left[-1] > left[0] - (16 << 20)


@pytest.mark.parametrize("factory", ["Flat", "IVF64,Flat", "IVF64,PQ8"])
def test_an_index_on_the_gpu_finds_what_the_cpu_finds(factory: str) -> None:
    if not faiss_build().gpu:
        pytest.skip(f"this faiss {faiss_build().version} has no GPU support")
    clusters = Clusters(5000, 32)
    vectors = clusters.draw(5000, 1).astype(np.float16)
    questions = clusters.questions(64)
    faiss_index = training.empty_faiss_index(factory, 32)
    training.train(faiss_index, vectors, factory, 0, None, silent)
    training.add(faiss_index, vectors, factory, None, silent)
    norm = float(np.linalg.norm(vectors.astype(np.float64), axis=1).max())
    settings = {} if factory == "Flat" else {"nprobe": 16, "rerank_width": 64}
    on_cpu, on_gpu = (VectorIndex(faiss_index, vectors, norm, settings) for _ in range(2))
    assert place(on_gpu, DEVICE).on_gpu
    try:
        ours, theirs = on_gpu.search(questions, 5), on_cpu.search(questions, 5)
    finally:
        on_gpu.close()
    same = ours.rows == theirs.rows
    np.testing.assert_array_equal(ours.scores[same], theirs.scores[same])  # the stored vectors decide
    assert same.mean() == 1 if factory == "Flat" else same.mean() > 0.99


def test_an_index_that_a_gpu_cannot_search_is_refused() -> None:
    if not faiss_build().gpu:
        pytest.skip(f"this faiss {faiss_build().version} has no GPU support")
    vectors = Clusters(500, 16).draw(500, 1).astype(np.float16)
    faiss_index = training.empty_faiss_index("HNSW8", 16)
    training.add(faiss_index, vectors, "HNSW8", None, silent)
    index = VectorIndex(faiss_index, vectors, 20.0, {})
    with pytest.raises(DeviceError, match="no GPU code for IndexHNSW"):
        place(index, DEVICE)
    assert not place(index, "auto").on_gpu
