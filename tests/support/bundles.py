"""Fixtures for tests of an index: minimal bundles, vectors, and exact search by numpy."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tokenizers
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ragengine.bundle.manifest import FORMAT_VERSION
from ragengine.indexing.build import build_index
from ragengine.storage import folders
from tests.support.paths import GOLDEN

Array = NDArray[Any]
E = 8
"""The dimension of the vectors in these tests."""
GENERATOR_OF = GOLDEN / "bundle_v2"
"""The source of the generator of these bundles."""
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz"]


def brute_force(vectors: Array, questions: Array, n_docs: int) -> tuple[Array, Array]:
    """Exact search of questions [Q, E] in stored vectors [N, E]; ties by row."""
    scores = (questions.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :n_docs]
    return rows, np.take_along_axis(scores, rows, axis=1)


def random_vectors(count: int, dimension: int = E, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def write_bundle(
    folder: Path, dimension: int, *, fingerprint: str = "f" * 64, passage_encoder: bool = True
) -> Path:
    """Write a bundle whose encoders return zero vectors of ``dimension`` numbers."""
    paths = ["question_encoder"] + ["passage_encoder"] * passage_encoder
    for path in paths:
        (folder / path).mkdir(parents=True, exist_ok=True)
        write_encoder(folder / path, np.zeros((len(WORDS), dimension)))
    shutil.copytree(GENERATOR_OF / "generator", folder / "generator", dirs_exist_ok=True)
    golden = json.loads((GENERATOR_OF / folders.MANIFEST).read_text("utf-8"))
    question = _encoder("question_encoder", dimension, "e" * 64 if passage_encoder else fingerprint)
    content: dict[str, Any] = {
        "format": "ragengine-bundle",
        "format_version": FORMAT_VERSION,
        "precision": "fp32",
        "created_by": "a test",
        "created_from": {},
        "rag": {
            "architecture": "RagTokenForGeneration",
            "title_sep": " / ",
            "doc_sep": " // ",
            "prefix": "",
            "n_docs": 5,
            "max_combined_length": 300,
            "do_deduplication": True,
            "exclude_bos_score": False,
        },
        "question_encoder": question,
        "passage_encoder": _encoder("passage_encoder", dimension, fingerprint) if passage_encoder else None,
        "generator": golden["generator"],
        "generation": {},
    }
    folders.write_manifest(folder, content)
    return folder


def add_passage_encoder(folder: Path, weights: Array) -> None:
    """Give the bundle a passage encoder: a vector is the sum of its tokens' rows of ``weights`` [V, E]."""
    write_encoder(folder / "passage_encoder", weights)
    rewrite_manifest(folder)


def write_encoder(folder: Path, weights: Array) -> None:
    """Write the graph and the tokenizer of :func:`add_passage_encoder` into ``folder``."""
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    words, positions = (f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position"))
    axes = ["N", "S"]
    graph = helper.make_graph(
        [
            helper.make_node("Gather", [words, "input_ids"], ["embedded"]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["wide_mask"]),
            helper.make_node("Mul", ["embedded", "wide_mask"], ["masked"]),
            helper.make_node("ReduceSum", ["masked", "one"], ["vectors"], keepdims=0),
        ],
        "encoder",
        [helper.make_tensor_value_info(n, TensorProto.INT64, axes) for n in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["N", weights.shape[1]])],
        [
            numpy_helper.from_array(weights.astype(np.float32), words),
            numpy_helper.from_array(np.zeros((64, weights.shape[1]), np.float32), positions),
            numpy_helper.from_array(np.array([-1]), "last"),
            numpy_helper.from_array(np.array([1]), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "encoder.onnx"))


def rewrite_manifest(folder: Path, **changes: Any) -> None:
    """Hash the folder's files again and change fields of the manifest, as a forger would."""
    content = json.loads((folder / folders.MANIFEST).read_text("utf-8"))
    (folder / folders.MANIFEST).unlink()
    folders.write_manifest(folder, {**content, **changes})


def _encoder(path: str, dimension: int, fingerprint: str) -> dict[str, Any]:
    return {
        "path": path,
        "name": f"test/{path}",
        "fingerprint": fingerprint,
        "dimension": dimension,
        "tokenizer": {"pad_token_id": 0, "max_length": 64, "clean_up_tokenization_spaces": False},
    }


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", E)


@pytest.fixture
def build(tmp_path: Path, bundle: Path) -> Callable[..., Path]:
    """Build an index of numbered passages with given vectors."""

    def build_from(vectors: Array, count: int | None = None, **options: Any) -> Path:
        lines = [
            json.dumps({"id": f"id{row}", "title": f"title {row}", "text": f"text {row}"})
            for row in range(len(vectors) if count is None else count)
        ]
        (tmp_path / "passages.jsonl").write_text("\n".join(lines))
        np.save(tmp_path / "vectors.npy", vectors)
        options = {"bundle": bundle, "embeddings": tmp_path / "vectors.npy", "force": True, **options}
        build_index(tmp_path / "passages.jsonl", tmp_path / "index", **options)
        return tmp_path / "index"

    return build_from
