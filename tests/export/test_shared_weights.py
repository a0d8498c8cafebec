"""Weights that question and passage encoder have in common are stored once, and nothing else changes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DPRQuestionEncoder

from ragengine import Bundle
from ragengine.bundle.manifest import BundleManifest, EncoderSpec
from ragengine.bundle.onnx_reader import read_graph
from ragengine.errors import BundleError
from ragengine.retrieval.encoder import TextEncoder
from ragengine_export import export_checkpoint
from ragengine_export.choices import PRECISIONS, Precision
from ragengine_export.weights import ALIGNMENT
from tests.robustness.forgery import field
from tests.support.bundles import rewrite_manifest
from tests.support.models import save_bart, save_dpr

SIZES = {"projection_dim": 12, "hidden_size": 32, "intermediate_size": 64}
TUNED = ("encode_proj", "encoder.layer.1.")
"""What the joint training of these tests has changed of the question encoder."""
PASSAGES = [("Iceland", "an island in the north"), ("", "a b c"), ("Peru", "the Andes and the sea")]


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bart(tmp_path_factory.mktemp("bart"))


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A question encoder and the passage encoder that it was before its last layers were trained on."""
    folder = tmp_path_factory.mktemp("encoders")
    question = save_dpr(folder / "question", seed=3, **SIZES)
    passage = save_dpr(folder / "passage", context=True, seed=3, **SIZES)
    model = DPRQuestionEncoder.from_pretrained(question)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in TUNED):
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    model.save_pretrained(question)
    return question, passage


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, encoders: tuple[Path, Path], bart: Path) -> Path:
    return _export(tmp_path_factory.mktemp("shared") / "bundle", *encoders, bart)


def _export(
    path: Path, question: Path, passage: Path | None, bart: Path, precision: Precision = "fp32"
) -> Path:
    export_checkpoint(
        None, path, precision, question_encoder=question, context_encoder=passage, generator=bart
    )
    return path


def _passage_encoder(manifest: BundleManifest) -> EncoderSpec:
    assert manifest.passage_encoder is not None
    return manifest.passage_encoder


def _vectors(path: Path, *, of_passages: bool) -> bytes:
    opened = Bundle.open(path)
    spec = _passage_encoder(opened.manifest) if of_passages else opened.manifest.question_encoder
    encoder = TextEncoder.load(opened, spec, device="cpu", threads=1)
    return encoder.encode_passages(PASSAGES).tobytes()


def _external(path: Path, file: str) -> dict[str, tuple[str, int]]:
    """Where a graph's tensors are, by name: file and length in bytes."""
    parsed = read_graph(path / file)
    assert parsed.value is not None, parsed.errors
    return {data.tensor: (data.location, data.length) for data in parsed.value.external}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_both_encoders_compute_what_they_compute_apart(
    precision: Precision, encoders: tuple[Path, Path], bart: Path, tmp_path: Path
) -> None:
    """Vectors bit for bit; the files are smaller by the tensors that both have, to a byte but for padding."""
    question, passage = encoders
    both = _export(tmp_path / "both", question, passage, bart, precision)
    questions = _export(tmp_path / "questions", question, None, bart, precision)
    original = save_dpr(tmp_path / "original", seed=3, **SIZES)  # the passage encoder, to read questions
    passages = _export(tmp_path / "passages", original, None, bart, precision)
    assert _vectors(both, of_passages=False) == _vectors(questions, of_passages=False)
    assert _vectors(both, of_passages=True) == _vectors(passages, of_passages=False)
    assert _vectors(both, of_passages=True) != _vectors(both, of_passages=False)

    folder = "question_encoder"
    for file in ("weights.bin", "encoder.onnx"):  # the question encoder's files know nothing of the other
        assert (both / folder / file).read_bytes() == (questions / folder / file).read_bytes()
    tensors = _external(both / folder, "passages.onnx")
    own = {name: length for name, (file, length) in tensors.items() if file == "passages.bin"}
    assert own
    assert all(name.startswith(TUNED) for name in own)
    assert "embeddings.word_embeddings.weight" in tensors
    written = (both / folder / "passages.bin").stat().st_size
    assert sum(own.values()) <= written < sum(own.values()) + ALIGNMENT * len(own)

    ours, apart = (Bundle.open(path).manifest for path in (both, passages))
    assert (_passage_encoder(ours).path, _passage_encoder(ours).graph) == (folder, "passages.onnx")
    assert _passage_encoder(ours).fingerprint == apart.question_encoder.fingerprint
    assert ours.question_encoder.fingerprint != _passage_encoder(ours).fingerprint


def test_encoders_with_nothing_in_common_have_a_folder_each(bart: Path, tmp_path: Path) -> None:
    passage = save_dpr(tmp_path / "context", context=True, seed=4, **SIZES)
    question = save_dpr(tmp_path / "question", seed=3, **SIZES)
    path = _export(tmp_path / "bundle", question, passage, bart)
    spec = _passage_encoder(Bundle.open(path).manifest)
    assert (spec.path, spec.graph) == ("passage_encoder", "encoder.onnx")
    for folder in ("question_encoder", "passage_encoder"):
        assert {f.name for f in (path / folder).iterdir()} == {
            "encoder.onnx",
            "tokenizer.json",
            "weights.bin",
        }


def test_encoders_with_other_tokenizers_have_a_folder_each(
    encoders: tuple[Path, Path], bart: Path, tmp_path: Path
) -> None:
    question, passage = encoders
    other = Path(shutil.copytree(passage, tmp_path / "other"))
    content = json.loads((other / "tokenizer.json").read_text("utf-8"))
    vocabulary = content["model"]["vocab"]
    one, two = list(vocabulary)[-2:]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    (other / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    path = _export(tmp_path / "bundle", question, other, bart)
    assert _passage_encoder(Bundle.open(path).manifest).path == "passage_encoder"
    assert not (path / "question_encoder" / "passages.onnx").exists()


def test_equal_weights_in_networks_that_differ_elsewhere(bart: Path, tmp_path: Path) -> None:
    """Another epsilon of the norms is another graph over the same weights, so there is no file of its own."""
    question = save_dpr(tmp_path / "question", seed=3, **SIZES)
    passage = save_dpr(tmp_path / "passage", context=True, seed=3, layer_norm_eps=1e-2, **SIZES)
    path = _export(tmp_path / "bundle", question, passage, bart)
    files = {file.name for file in (path / "question_encoder").iterdir()}
    assert files == {"encoder.onnx", "passages.onnx", "tokenizer.json", "weights.bin"}
    assert _vectors(path, of_passages=True) != _vectors(path, of_passages=False)


@pytest.mark.parametrize("file", ["weights.bin", "passages.bin", "passages.onnx"])
def test_a_flipped_byte_is_found(file: str, bundle: Path, tmp_path: Path) -> None:
    forged = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    Bundle.open(forged)
    changed = forged / "question_encoder" / file
    content = np.fromfile(changed, np.uint8)
    content[len(content) // 2] ^= 1
    content.tofile(changed)
    with pytest.raises(BundleError, match=f"question_encoder/{file}"):
        Bundle.open(forged)


@pytest.mark.parametrize("missing", ["passages.onnx", "passages.bin"])
def test_a_missing_file_is_found(missing: str, bundle: Path, tmp_path: Path) -> None:
    """In a folder whose manifest does not list it either."""
    forged = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    (forged / "question_encoder" / missing).unlink()
    rewrite_manifest(forged)
    with pytest.raises(BundleError, match=missing):
        Bundle.open(forged)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "weights.bin", "../generator/encoder.onnx", "x.onnx", 3, None]
)
def test_no_other_file_can_be_an_encoder(name: object, bundle: Path, tmp_path: Path) -> None:
    """A graph that is not inspected must not reach onnxruntime."""
    forged = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    field("passage_encoder.graph", name)(forged)
    with pytest.raises(BundleError, match=r"passage_encoder\.graph: .* is not one of 'encoder.onnx', 'pass"):
        Bundle.open(forged)


def test_faults_of_the_passage_graph_name_it(bundle: Path, tmp_path: Path) -> None:
    forged = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    field("passage_encoder.dimension", 13)(forged)
    with pytest.raises(BundleError, match=r"question_encoder/passages\.onnx: its output vectors is"):
        Bundle.open(forged)
