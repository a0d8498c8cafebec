"""NaN or infinity in any weight of any graph is a typed error, never an answer."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ragengine import Document, RagEngine
from ragengine.errors import GraphOutputError, IndexFolderError, RagEngineError
from ragengine_bench.parity.pairs import Pair
from ragengine_export import export_checkpoint
from tests.robustness.test_requests import assert_sound, outcome
from tests.support.bundles import rewrite_manifest

WEIGHTS = {
    "question encoder": ("question_encoder", "encoder.onnx", "encoder.layer.0.attention.self.query.weight"),
    "generator encoder": ("generator", "encoder.onnx", "model.encoder.layers.0.fc1.weight"),
    "cross keys": ("generator", "cross.onnx", "model.decoder.layers.0.encoder_attn.k_proj.weight"),
    "cross values": ("generator", "cross.onnx", "model.decoder.layers.0.encoder_attn.v_proj.weight"),
    "decoder": ("generator", "decoder.onnx", "model.decoder.layers.0.self_attn.v_proj.weight"),
    "decoder norm": ("generator", "decoder.onnx", "model.decoder.layers.0.final_layer_norm.bias"),
}


@pytest.fixture(scope="module")
def bundle(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pair's model, whose question encoder also encodes passages."""
    folder = tmp_path_factory.mktemp("finite") / "bundle"
    export_checkpoint(pair.checkpoint.source, folder, check=False)
    return folder


def damaged(bundle: Path, target: Path, weight: str, number: float) -> Path:
    """A copy of the bundle with ``number`` in one weight, and matching hashes."""
    shutil.copytree(bundle, target)
    folder, graph, name = WEIGHTS[weight]
    model = onnx.load(target / folder / graph, load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.name == name)
    where = {entry.key: entry.value for entry in tensor.external_data}
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    with (target / folder / where["location"]).open("r+b") as file:
        file.seek(int(where["offset"]) + dtype.itemsize * 3)
        file.write(np.array(number, dtype).tobytes())
    rewrite_manifest(target)
    return target


def calls(engine: RagEngine) -> dict[str, Callable[[], Any]]:
    return {
        "generate": lambda: engine.generate("who?"),
        "beams": lambda: engine.generate("who?", num_beams=3),
        "thorough": lambda: engine.generate("who?", marginalize="sequence"),
        "joint": lambda: engine.generate("who?", marginalize="sequence", search="joint"),
        "sampled": lambda: engine.generate("who?", do_sample=True, seed=0),
        "stream": lambda: list(engine.stream("who?", num_beams=1)),
        "score": lambda: engine.score("who?", "yes"),
        "classify": lambda: engine.classify("who?", ["yes", "no"]),
        "own documents": lambda: engine.generate("who?", documents=[Document("t", "text", score=1.0)]),
    }


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_no_call_answers(pair: Pair, bundle: Path, tmp_path: Path, weight: str, number: float) -> None:
    path = damaged(bundle, tmp_path / "bundle", weight, number)
    with RagEngine.load(path, index=pair.engine.retriever.index.path, device="cpu") as engine:
        for name, call in calls(engine).items():
            error = outcome(call)
            assert isinstance(error, GraphOutputError), name
            assert re.search(r"returned (NaN|a probability)", str(error))


def test_huge_weights_answer_or_say_so(pair: Pair, bundle: Path, tmp_path: Path) -> None:
    for number, weight in enumerate(WEIGHTS):
        path = damaged(bundle, tmp_path / str(number), weight, 3e38)
        with RagEngine.load(path, index=pair.engine.retriever.index.path, device="cpu") as engine:
            result = outcome(engine.generate, "who?")
            if isinstance(result, RagEngineError):
                assert "\n" not in str(result)
            else:
                assert_sound(result)


@pytest.mark.parametrize("number", [np.nan, np.inf], ids=str)
def test_stored_vectors_that_are_not_finite_never_rank(pair: Pair, tmp_path: Path, number: float) -> None:
    index = tmp_path / "index"
    shutil.copytree(pair.engine.retriever.index.path, index)
    vectors = np.lib.format.open_memmap(index / "vectors.npy", mode="r+")
    vectors[:, 0] = number
    del vectors
    rewrite_manifest(index)
    assert json.loads((index / "manifest.json").read_text())["count"]
    with (
        pytest.raises(IndexFolderError, match=r"NaN or infinite"),
        RagEngine.load(pair.bundle, index=index, device="cpu") as engine,
    ):
        engine.generate("who?")
