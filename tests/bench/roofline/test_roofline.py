"""The roofline's operations are those that the exported graphs execute."""

import json
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from ragengine.bundle.bundle import Bundle
from ragengine.generation import model as model_module
from ragengine.generation.decoders.base import StepInputs
from ragengine.generation.model import GeneratorModel
from ragengine.retrieval import encoder as encoder_module
from ragengine.retrieval.encoder import TextEncoder
from ragengine.tokenization import Encoded
from ragengine_bench.checkpoints.random_checkpoint import RAG, write_random_checkpoint
from ragengine_bench.checkpoints.shapes import SHAPES
from ragengine_bench.roofline.roofline import (
    Rates,
    RunSizes,
    StepSizes,
    Work,
    decoding_step,
    encode_documents,
    encode_question,
    rooflines,
)
from ragengine_bench.roofline.sizes import BYTES_PER_WEIGHT, Sizes, sizes_of
from ragengine_export import export_checkpoint
from ragengine_export.choices import PRECISIONS
from tests.support.models import save_dpr, save_generator

SHAPE = SHAPES["tiny"]
D, S = 3, 11


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_random_checkpoint(SHAPE, folder)
    return folder / RAG


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Path:
    path = checkpoint.parent / "bundle"
    export_checkpoint(checkpoint, path, check=False)
    return path


class Profiles:
    """Sessions that are profiled: what their matrix products multiply."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sessions: list[Any] = []

    def create_session(self, path: Path, **_: Any) -> Any:
        options = ort.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(self._folder / path.stem)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._sessions.append(session)
        return session

    def operations(self) -> int:
        """Of all products with weights and all attention since the start."""
        events = [
            event
            for session in self._sessions
            for event in json.loads(Path(session.end_profiling()).read_text())
            if event.get("cat") == "Node"
        ]
        return sum(_operations(event["args"]) for event in events)


def _operations(node: dict[str, Any]) -> int:
    inputs = [next(iter(shape.values())) for shape in node.get("input_type_shape", [])]
    outputs = [next(iter(shape.values())) for shape in node.get("output_type_shape", [])]
    if node["op_name"] == "FusedMatMul":  # x Wᵀ
        return int(2 * prod(outputs[0]) * inputs[0][-1])
    if node["op_name"] == "MultiHeadAttention":
        n, queries, width = inputs[0]
        keys = outputs[1][2] if len(outputs) > 1 else inputs[1][-2]
        return int(2 * 2 * n * queries * keys * width)
    return 0


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profiles:
    found = Profiles(tmp_path)
    monkeypatch.setattr(model_module, "create_session", found.create_session)
    monkeypatch.setattr(encoder_module, "create_session", found.create_session)
    return found


def _read(bundle: Path) -> tuple[GeneratorModel, Any]:
    model = GeneratorModel(Bundle.open(bundle), device="cpu", threads=1)
    ids = np.random.default_rng(0).integers(4, SHAPE.vocabulary, (1, D, S))
    return model, model.start(model.encode_documents(ids, np.ones_like(ids)), beams=4, steps=9)


def _step(model: GeneratorModel, decoding: Any, beams: int, parents: int) -> None:
    shape = (1, beams)
    inputs = StepInputs(
        token_ids=np.full(shape, 5, np.int64),
        beam_indices=np.minimum(np.arange(beams), parents - 1)[None],
        log_weights=np.zeros((1, D, beams), np.float32),
        beam_scores=np.zeros(shape, np.float32),
        num_candidates=2,
        probe_ids=np.zeros((*shape, 1), np.int64),
    )
    model.decode_step(decoding, inputs)


def test_every_precision_has_a_size() -> None:
    assert tuple(BYTES_PER_WEIGHT) == PRECISIONS


def test_sizes_are_those_of_the_shape(bundle: Path) -> None:
    sizes = sizes_of(bundle).generator
    assert (sizes.d_model, sizes.vocabulary) == (SHAPE.d_model, SHAPE.vocabulary)
    assert (sizes.encoder_layers, sizes.decoder_layers) == (SHAPE.layers, SHAPE.layers)
    assert (sizes.encoder_ffn, sizes.decoder_ffn) == (SHAPE.ffn, SHAPE.ffn)
    question = sizes_of(bundle).question_encoder
    assert (question.hidden, question.layers, question.ffn, question.head) == (32, 1, 32, 0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_sizes_are_the_same_in_every_precision(checkpoint: Path, bundle: Path, precision: Any) -> None:
    path = checkpoint.parent / f"bundle-{precision}"
    export_checkpoint(checkpoint, path, precision, check=False)
    found, expected = sizes_of(path), sizes_of(bundle)
    cached = 2 if precision == "fp16" else 4
    assert found.generator == replace(expected.generator, cached_bytes=cached)
    assert found.question_encoder == expected.question_encoder
    assert found.precision == precision
    assert found.bytes_per_weight <= expected.bytes_per_weight


@pytest.mark.parametrize("precision", PRECISIONS)
def test_sizes_of_a_t5_whose_attention_is_narrower(precision: Any, tmp_path: Path) -> None:
    """A gated feed-forward part has three matrices, and counts half as much again."""
    t5 = save_generator(tmp_path / "t5", "flan-t5", d_model=24, encoder_heads=2, d_kv=7, encoder_ffn=30)
    dpr = save_dpr(tmp_path / "dpr")
    export_checkpoint(None, tmp_path / "b", precision, question_encoder=dpr, generator=t5, check=False)
    sizes = sizes_of(tmp_path / "b").generator
    assert (sizes.d_model, sizes.inner, sizes.encoder_ffn, sizes.decoder_ffn) == (24, 14, 45, 45)
    assert sizes.encoder_layers == sizes.decoder_layers


def test_encoding_documents(bundle: Path, profiles: Profiles) -> None:
    _read(bundle)
    assert encode_documents(sizes_of(bundle).generator, [S] * D, 4).operations == profiles.operations()


def test_encoding_questions(profiles: Profiles, bundle: Path) -> None:
    opened = Bundle.open(bundle)
    encoder = TextEncoder.load(opened, opened.manifest.question_encoder, device="cpu", threads=1)
    encoder.encode_tokens([Encoded([0, 1, 2, 3], False)] * 2)
    assert encode_question(sizes_of(bundle).question_encoder, [4, 4], 4).operations == profiles.operations()


def test_greedy_steps(bundle: Path, profiles: Profiles) -> None:
    model, decoding = _read(bundle)
    for _ in range(4):
        _step(model, decoding, beams=1, parents=1)
    sizes = sizes_of(bundle).generator
    expected = encode_documents(sizes, [S] * D, 4).operations
    steps = [StepSizes(D, D * S, 1, t) for t in range(1, 5)]
    expected += sum(decoding_step(sizes, step, 4).operations for step in steps)
    assert expected == profiles.operations()


def test_beam_steps_differ_by_the_tokens_of_other_beams(bundle: Path, profiles: Profiles) -> None:
    """The graph's past holds the tokens of all beams; the roofline counts each beam's own."""
    model, decoding = _read(bundle)
    beams, layers, width = 4, SHAPE.layers, SHAPE.d_model
    _step(model, decoding, 1, 1)
    _step(model, decoding, beams, 1)
    _step(model, decoding, beams, beams)
    sizes = sizes_of(bundle).generator
    expected = encode_documents(sizes, [S] * D, 4).operations
    steps = [StepSizes(D, D * S, 1, 1), StepSizes(D, D * S, beams, 2), StepSizes(D, D * S, beams, 3)]
    expected += sum(decoding_step(sizes, step, 4).operations for step in steps)
    others = (1 + beams) - 2 + (1 + 2 * beams) - 3
    assert expected + layers * 4 * width * D * beams * others == profiles.operations()


def test_the_roofline_is_the_slower_of_computing_and_reading() -> None:
    rates = Rates({"fp32": 100.0}, bandwidth=10.0)
    assert Work(operations=500, bytes=10).seconds(rates, "fp32") == 5
    assert Work(operations=500, bytes=80).seconds(rates, "fp32") == 8


def test_a_step_reads_the_weights_and_the_cache_once(bundle: Path) -> None:
    sizes = sizes_of(bundle).generator
    step = StepSizes(documents=D, source_tokens=D * S, beams=2, tokens=3)
    layer = 6 * SHAPE.d_model**2 + 2 * SHAPE.d_model * SHAPE.ffn
    weights = SHAPE.layers * layer + SHAPE.d_model * SHAPE.vocabulary
    cached = 2 * SHAPE.layers * SHAPE.d_model * (D * S + D * 2 * 3)
    assert decoding_step(sizes, step, 1).bytes == weights + 4 * cached
    assert decoding_step(sizes, step, 4).bytes == 4 * (weights + cached)


def test_rooflines_of_a_run_add_up_and_leave_out_what_did_not_run(bundle: Path) -> None:
    found = sizes_of(bundle)
    sizes = Sizes(found.question_encoder, found.generator, "fp32")
    rates = Rates({"fp32": 1e9}, bandwidth=1e12)
    once = rooflines(sizes, rates, RunSizes(documents=[[5, 7]], steps=[StepSizes(2, 12, 1, 1)]))
    twice = rooflines(sizes, rates, RunSizes(documents=[[5, 7]] * 2, steps=[StepSizes(2, 12, 1, 1)] * 2))
    assert set(once) == {"encode documents", "decode"}
    assert twice == pytest.approx({stage: 2 * seconds for stage, seconds in once.items()})
