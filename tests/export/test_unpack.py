"""A bundle is unpacked to the checkpoint that it was exported from, and that exports to the same bundle."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import RagTokenForGeneration, RagTokenizer

from ragengine import Bundle
from ragengine.bundle.manifest import BundleManifest
from ragengine.errors import BundleError, ExportError
from ragengine_bench.checkpoints.generators import GENERATORS
from ragengine_bench.checkpoints.rag_checkpoint import random_spec, write_checkpoint
from ragengine_export import export_checkpoint, unpack_bundle
from ragengine_export.bundle_weights import graph_weights
from ragengine_export.cli import unpack as unpack_command
from ragengine_export.encoder_families import ENCODERS
from ragengine_export.unpack import same_tokenizer
from ragengine_export.weights import Precision
from tests.support.bundles import rewrite_manifest
from tests.support.models import save_bart, save_dpr, transformers_5
from tests.support.paths import WORLDFACTS
from tests.support.sentence_folders import MODELS, make_encoder, make_tokenizer, write_sentence_folder

SMALL: dict[str, Any] = {"n_docs": 2, "n_passages": 8, "question_layers": 1, "encoder_layers": 1}
TEXT = "Who wrote the Origin of Species? <s> café"


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bart(tmp_path_factory.mktemp("bart"))


def manifest_of(bundle: Path) -> BundleManifest:
    return Bundle.open(bundle).manifest


def assert_same_bundle(first: Path, second: Path, *, fingerprints: bool = True) -> None:
    """Every file to the byte, and every specification; names of sources may differ.

    Of tokenizers numbers may differ in their 16th digit, which the library rounds anew each time.
    """
    ours, theirs = manifest_of(first), manifest_of(second)
    assert ours.files.keys() == theirs.files.keys()
    for name in ours.files:
        if Path(name).name == "tokenizer.json":
            assert same_tokenizer(*((folder / name).read_text("utf-8") for folder in (first, second)))
        else:
            assert ours.files[name] == theirs.files[name], name
    assert (ours.rag, ours.generator, ours.generation) == (theirs.rag, theirs.generator, theirs.generation)
    for one, other in (
        (ours.question_encoder, theirs.question_encoder),
        (ours.passage_encoder, theirs.passage_encoder),
    ):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            left, right = vars(one) | {"name": ""}, vars(other) | {"name": ""}
            if not fingerprints:  # of weights that were rounded
                left, right = left | {"fingerprint": ""}, right | {"fingerprint": ""}
            assert left == right


def answer_by_transformers(folder: Path) -> torch.Tensor:
    """Tokens and scores of transformers for given documents."""
    model = RagTokenForGeneration.from_pretrained(folder).eval()
    tokenizer = RagTokenizer.from_pretrained(folder)
    read = tokenizer.generator([TEXT, f"{TEXT} {TEXT}"], padding=True, return_tensors="pt")
    with torch.no_grad():
        asked = tokenizer.question_encoder(TEXT, return_tensors="pt")
        vector = model.question_encoder(asked["input_ids"], asked["attention_mask"])[0]
        output: torch.Tensor = model(
            context_input_ids=read["input_ids"],
            context_attention_mask=read["attention_mask"],
            doc_scores=torch.tensor([[0.5, -0.25]]),
            decoder_input_ids=torch.tensor([[2, 5, 7]]),
            n_docs=2,
        ).logits
    return torch.cat([output.flatten(), vector.flatten()])


@transformers_5
@pytest.mark.parametrize(("number", "name"), list(enumerate(GENERATORS)), ids=lambda value: str(value))
def test_every_generator(number: int, name: str, tmp_path: Path) -> None:
    """Untied heads too; fp32 has the very logits of the checkpoint in transformers, fp16 the same bundle."""
    precision: Precision = "fp16" if number % 3 == 1 else "fp32"
    spec = random_spec(11 + number, model_type=name, tied=number % 2 == 0, **SMALL)
    source = write_checkpoint(spec, tmp_path).source
    context = save_dpr(
        tmp_path / "ctx", context=True, projection_dim=spec.projection_dim or spec.question_hidden_size
    )
    export_checkpoint(source, tmp_path / "first", precision, context_encoder=context, check=False)
    check = number < 2  # the graphs of each family have their own tests
    report = unpack_bundle(tmp_path / "first", tmp_path / "unpacked", check=check)
    assert len(report.checks) == (6 if check else 0)
    assert bool(report.notes) == (precision == "fp16")
    again = export_checkpoint(tmp_path / "unpacked", tmp_path / "second", precision, check=False)
    assert any("context_encoder" in note for note in again.notes)  # it is found
    assert_same_bundle(tmp_path / "first", tmp_path / "second", fingerprints=precision == "fp32")
    if precision == "fp32":
        assert torch.equal(answer_by_transformers(source), answer_by_transformers(tmp_path / "unpacked"))
    for part in ("question_encoder", "generator"):
        ours, theirs = (
            getattr(RagTokenizer.from_pretrained(folder), part) for folder in (source, tmp_path / "unpacked")
        )
        assert ours(TEXT)["input_ids"] == theirs(TEXT)["input_ids"]
        assert ours.pad_token_id == theirs.pad_token_id


def test_rag_sequence(tmp_path: Path) -> None:
    """It keeps its architecture, and what its `generate` does not read is told again."""
    source = write_checkpoint(random_spec(5, **SMALL), tmp_path).source
    config = json.loads((source / "config.json").read_text("utf-8"))
    config["architectures"] = ["RagSequenceForGeneration"]
    (source / "config.json").write_text(json.dumps(config), "utf-8")
    generation = json.loads((source / "generation_config.json").read_text("utf-8"))
    (source / "generation_config.json").write_text(json.dumps(generation | {"num_beams": 3}), "utf-8")
    first = export_checkpoint(source, tmp_path / "first", check=False)
    unpack_bundle(tmp_path / "first", tmp_path / "unpacked", check=False)
    second = export_checkpoint(tmp_path / "unpacked", tmp_path / "second", check=False)
    assert manifest_of(tmp_path / "second").rag.architecture == "RagSequenceForGeneration"
    assert_same_bundle(tmp_path / "first", tmp_path / "second")
    assert first.warnings == second.warnings
    assert any("num_beams=3" in warning for warning in second.warnings)


def test_the_networks_by_themselves(tmp_path: Path, bart: Path) -> None:
    """The networks by themselves export, joined, to the weights of the whole."""
    dpr = save_dpr(tmp_path / "dpr", projection_dim=10)
    export_checkpoint(None, tmp_path / "first", question_encoder=dpr, generator=bart, check=False)
    unpack_bundle(tmp_path / "first", tmp_path / "unpacked", check=False)
    parts = {part: tmp_path / "unpacked" / part for part in ("question_encoder", "generator")}
    assert not (tmp_path / "unpacked" / "context_encoder").exists()
    export_checkpoint(None, tmp_path / "second", **parts, check=False)
    assert manifest_of(tmp_path / "first").files == manifest_of(tmp_path / "second").files


@pytest.mark.parametrize("family", ENCODERS)
def test_every_bare_encoder(family: str, tmp_path: Path, bart: Path) -> None:
    """It stays bare, and a note says with which pooling it is exported again."""
    pooling: Any = "pooler" if family == "bert" else "mean"
    tokenizer = make_tokenizer(family, model_max_length=40)
    make_encoder(family, len(tokenizer), np.random.default_rng(3)).save_pretrained(str(tmp_path / "source"))
    tokenizer.save_pretrained(str(tmp_path / "source"))
    source = tmp_path / "source"
    given = {"question_encoder": source, "context_encoder": source, "generator": bart, "pooling": pooling}
    export_checkpoint(None, tmp_path / "first", **given)
    report = unpack_bundle(tmp_path / "first", tmp_path / "unpacked", check=False)
    assert any(f"--pooling {pooling}" in note for note in report.notes)
    export_checkpoint(tmp_path / "unpacked", tmp_path / "second", pooling=pooling, check=False)
    assert_same_bundle(tmp_path / "first", tmp_path / "second")


@pytest.mark.parametrize("name", MODELS)
def test_every_sentence_folder(name: str, tmp_path: Path, bart: Path) -> None:
    source = write_sentence_folder(tmp_path / "model", MODELS[name])
    export_checkpoint(None, tmp_path / "first", question_encoder=source, generator=bart, check=False)
    unpack_bundle(tmp_path / "first", tmp_path / "unpacked", check=False)
    export_checkpoint(tmp_path / "unpacked", tmp_path / "second", check=False)
    assert_same_bundle(tmp_path / "first", tmp_path / "second")


def test_the_embedded_model_whose_bundle_remembers_nothing(tmp_path: Path) -> None:
    """An older version wrote it: configs are made of the graphs, and compared with them."""
    bundle = WORLDFACTS / "bundle"
    report = unpack_bundle(bundle, tmp_path / "unpacked", check=False)
    assert len(report.checks) == 6  # all the same
    assert "older" in report.notes[0]
    export_checkpoint(tmp_path / "unpacked", tmp_path / "again", check=False)
    ours, theirs = manifest_of(bundle), manifest_of(tmp_path / "again")
    assert theirs.question_encoder.fingerprint == ours.question_encoder.fingerprint
    assert theirs.passage_encoder is not None
    assert ours.passage_encoder is not None
    assert theirs.passage_encoder.fingerprint == ours.passage_encoder.fingerprint  # its index still fits
    assert {name: theirs.generation[name] for name in ours.generation} == ours.generation
    assert theirs.rag == ours.rag
    for graph in ("generator/encoder.onnx", "generator/cross.onnx", "generator/decoder.onnx"):
        before, after = graph_weights([bundle / graph]), graph_weights([tmp_path / "again" / graph])
        assert before.keys() == after.keys()
        assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_rounded_weights_are_refused(precision: Precision, tmp_path: Path, bart: Path) -> None:
    dpr = save_dpr(tmp_path / "dpr", projection_dim=10)
    export_checkpoint(None, tmp_path / "b", precision, question_encoder=dpr, generator=bart, check=False)
    with pytest.raises(
        ExportError, match=rf"is an {precision} bundle, whose weights are rounded for good; unpack"
    ):
        unpack_bundle(tmp_path / "b", tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()


def test_nothing_is_replaced_and_nothing_half_written_stays(tmp_path: Path, bart: Path) -> None:
    dpr = save_dpr(tmp_path / "dpr", projection_dim=10)
    bundle = tmp_path / "bundle"
    export_checkpoint(None, bundle, question_encoder=dpr, generator=bart, check=False)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ExportError, match="exists, and unpack replaces nothing; name a folder that does not"):
        unpack_bundle(bundle, tmp_path / "mine")
    before = {path.name for path in tmp_path.iterdir()}
    origin = manifest_of(bundle).created_from
    forged = json.loads(json.dumps(origin))
    forged["checkpoint"]["config"]["generator"]["encoder_layers"] = 7
    rewrite_manifest(bundle, created_from=forged)
    with pytest.raises(
        ExportError, match=r"do not have the weights of a BartForConditionalGeneration: model\.enc"
    ):
        unpack_bundle(bundle, tmp_path / "unpacked")
    forged["checkpoint"]["config"]["generator"] |= {"encoder_layers": 2, "activation_function": "relu"}
    rewrite_manifest(bundle, created_from=forged)
    with pytest.raises(ExportError, match="Graphs differ from torch by more than"):
        unpack_bundle(bundle, tmp_path / "unpacked")
    rewrite_manifest(bundle, created_from={"checkpoint": {"config": 3}})
    with pytest.raises(BundleError, match=r"created_from\.checkpoint"):
        unpack_bundle(bundle, tmp_path / "unpacked")
    assert {path.name for path in tmp_path.iterdir()} == before


def test_no_path_of_this_machine_is_remembered(tmp_path: Path, bart: Path) -> None:
    dpr = save_dpr(tmp_path / "dpr", projection_dim=10)
    export_checkpoint(None, tmp_path / "bundle", question_encoder=dpr, generator=bart, check=False)
    unpack_bundle(tmp_path / "bundle", tmp_path / "unpacked", check=False)
    texts = [tmp_path / "bundle" / "manifest.json", *(tmp_path / "unpacked").rglob("*.json")]
    assert not any(str(tmp_path) in path.read_text("utf-8") for path in texts)


def test_the_command_prints_what_was_compared(tmp_path: Path, bart: Path) -> None:
    dpr = save_dpr(tmp_path / "dpr", projection_dim=10)
    export_checkpoint(None, tmp_path / "bundle", question_encoder=dpr, generator=bart, check=False)
    done = CliRunner().invoke(unpack_command, [str(tmp_path / "bundle"), str(tmp_path / "unpacked")])
    assert done.exit_code == 0, done.output
    assert "generator/decoder.onnx" in done.output
    assert "unpacked: " in done.output
