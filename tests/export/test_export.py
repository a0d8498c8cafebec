"""Export: every variant of the architectures, what it refuses, and what it leaves on disk."""

import json
import logging
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from click.testing import CliRunner
from transformers import (
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    DPRContextEncoder,
    RagTokenForGeneration,
)
from transformers.utils.logging import is_progress_bar_enabled

from ragengine import Bundle, Generator
from ragengine.errors import ExportError
from ragengine.retrieval.encoder import TextEncoder
from ragengine_bench.checkpoints.tokenizers import train_question_tokenizer
from ragengine_bench.parity.pairs import Pair
from ragengine_export import export_checkpoint, verification
from ragengine_export.cli import export as export_command
from ragengine_export.quiet import quiet
from tests.support.commands import run
from tests.support.models import randomised, save_bart, save_dpr

BART_VARIANTS: list[dict[str, Any]] = [
    {},
    {"activation_function": "relu"},
    {"activation_function": "silu"},
    {"activation_function": "gelu_new"},
    {"scale_embedding": True},
    {"tie_word_embeddings": False},
    {"final_logits_bias": True},
    {"encoder_layers": 1, "decoder_layers": 3, "d_model": 20, "encoder_attention_heads": 5},
    {"max_position_embeddings": 7},
]
DPR_VARIANTS: list[dict[str, Any]] = [
    {"projection_dim": 13},
    {"hidden_act": "relu"},
    {"layer_norm_eps": 1e-3},
]


@pytest.mark.parametrize("variant", BART_VARIANTS, ids=str)
def test_bart_variants_compute_what_torch_computes(
    variant: dict[str, Any], dpr: Path, tmp_path: Path
) -> None:
    generator = save_bart(tmp_path / "bart", **variant)
    report = export_checkpoint(None, tmp_path / "bundle", question_encoder=dpr, generator=generator)
    assert [c.graph for c in report.checks] == [
        "question_encoder/encoder.onnx",
        "generator/encoder.onnx",
        "generator/cross.onnx",
        "generator/decoder.onnx",
        "generator/step.onnx",
    ]
    assert all(c.difference < verification.TOLERANCE["fp32"] for c in report.checks)
    assert report.checks[-1].difference > 0  # something was compared
    loss = report.checks[3].loss
    assert loss is not None
    assert loss.token_agreement == 1
    weights = (tmp_path / "bundle" / "generator" / "weights.bin").read_bytes()
    saved = BartForConditionalGeneration.from_pretrained(generator).state_dict()
    saved.pop("model.shared.weight")  # an alias of the embeddings, or unused where nothing is tied
    assert all(t.numpy().tobytes() in weights for name, t in saved.items() if name.endswith("weight"))


@pytest.mark.parametrize("variant", DPR_VARIANTS, ids=str)
def test_dpr_variants_compute_what_torch_computes(
    variant: dict[str, Any], bart: Path, tmp_path: Path
) -> None:
    encoder = save_dpr(tmp_path / "dpr", **variant)
    context = save_dpr(tmp_path / "context", context=True, seed=1, **variant)
    export_checkpoint(
        None, tmp_path / "bundle", question_encoder=encoder, generator=bart, context_encoder=context
    )
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.question_encoder.dimension == variant.get("projection_dim", 24)
    assert manifest.passage_encoder is not None
    assert manifest.passage_encoder.path == "passage_encoder"


@pytest.mark.parametrize("pooler", [True, False])
def test_plain_bert_as_question_encoder(pooler: bool, bart: Path, tmp_path: Path) -> None:
    """Its pooled output, or its first token's state, which needs no pooler in the checkpoint."""
    folder = tmp_path / "bert"
    tokenizer = train_question_tokenizer(np.random.default_rng(0), 250, None, folder / "trained")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=3,
        intermediate_size=20,
    )
    model = randomised(BertModel(config, add_pooling_layer=pooler), 0)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    export_checkpoint(
        None,
        tmp_path / "bundle",
        question_encoder=folder,
        generator=bart,
        pooling="pooler" if pooler else "cls",
    )
    ids = np.array([[2, 30, 31, 3]])
    session = ort.InferenceSession(tmp_path / "bundle" / "question_encoder" / "encoder.onnx")
    vectors = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
    with torch.no_grad():
        output = model(torch.tensor(ids))
    expected = output.pooler_output if pooler else output.last_hidden_state[:, 0]
    np.testing.assert_allclose(vectors, expected.numpy(), atol=1e-5)


def test_bin_checkpoints_are_read_as_weights_only(pair: Pair, tmp_path: Path) -> None:
    """The same numbers as from safetensors; a pickle that would run code is refused, and does not run."""
    source = tmp_path / "source"
    for file in pair.checkpoint.source.rglob("*"):
        if file.is_file() and file.suffix != ".safetensors":
            target = source / file.relative_to(pair.checkpoint.source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    model = RagTokenForGeneration.from_pretrained(pair.checkpoint.source, dtype=torch.float32)
    torch.save(model.state_dict(), source / "pytorch_model.bin")
    export_checkpoint(source, tmp_path / "bundle", check=False)
    for part in ("generator", "question_encoder"):
        ours, theirs = (b / part / "weights.bin" for b in (tmp_path / "bundle", pair.bundle))
        assert ours.read_bytes() == theirs.read_bytes()

    as_torch_writes = pickle.dumps(_Touch(tmp_path / "ran"), protocol=2)
    (source / "pytorch_model.bin").write_bytes(as_torch_writes)
    with pytest.raises(ExportError):
        export_checkpoint(source, tmp_path / "bundle2")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "bundle2").exists()


class _Touch:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_graph_too_far_from_torch_is_refused_and_the_old_bundle_stays(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bundle"
    export_checkpoint(pair.checkpoint.source, target)
    before = {file: file.read_bytes() for file in target.rglob("*") if file.is_file()}
    monkeypatch.setitem(verification.TOLERANCE, "fp32", 1e-12)
    with pytest.raises(
        ExportError, match=r"differ from torch by more than 1e-12: question_encoder/encoder\.onnx"
    ):
        export_checkpoint(pair.checkpoint.source, target, force=True)
    with pytest.raises(ExportError, match=r"bundle exists; give --force .*\(in Python force=True\)"):
        export_checkpoint(pair.checkpoint.source, target, force=False)
    assert {file: file.read_bytes() for file in target.rglob("*") if file.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_check_notices_a_wrong_weight(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bias of one layer, changed between torch and the file."""
    from ragengine_export import checkpoint as reading

    original = reading.torch_state

    def tampered(module: torch.nn.Module) -> dict[str, Any]:
        state = original(module)
        name = "model.decoder.layers.0.encoder_attn.q_proj.bias"
        return {**state, name: state[name] + 0.5} if name in state else state

    monkeypatch.setattr(reading, "torch_state", tampered)
    with pytest.raises(ExportError, match=r"generator/decoder\.onnx"):
        export_checkpoint(pair.checkpoint.source, tmp_path / "bundle")


def test_the_same_checkpoint_gives_the_same_bytes(pair: Pair, tmp_path: Path) -> None:
    export_checkpoint(pair.checkpoint.source, tmp_path / "bundle", check=False)
    for file in pair.bundle.rglob("*"):
        if file.is_file():
            assert (tmp_path / "bundle" / file.relative_to(pair.bundle)).read_bytes() == file.read_bytes()


def test_a_config_that_says_return_dict_false_is_read(pair: Pair, tmp_path: Path) -> None:
    """As transformers 3 wrote it; every graph is compared with torch."""
    source = shutil.copytree(pair.checkpoint.source, tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    for part in (config, config["question_encoder"], config["generator"]):
        part["return_dict"] = False
    (source / "config.json").write_text(json.dumps(config))
    report = export_checkpoint(source, tmp_path / "bundle")
    assert all(check.difference < verification.TOLERANCE["fp32"] for check in report.checks)


@pytest.fixture(scope="module")
def end_to_end(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DPRContextEncoder]:
    """A checkpoint of end-to-end training, and the passage encoder in it."""
    source = tmp_path_factory.mktemp("end_to_end") / "source"
    shutil.copytree(pair.checkpoint.source, source)
    model = RagTokenForGeneration.from_pretrained(source)
    context_encoder = randomised(DPRContextEncoder(model.config.question_encoder), 5)
    model.set_context_encoder_for_training(context_encoder)
    model.save_pretrained(source)
    return source, context_encoder


def test_a_passage_encoder_of_end_to_end_training_is_the_bundles(
    end_to_end: tuple[Path, DPRContextEncoder], tmp_path: Path
) -> None:
    source, model = end_to_end
    report = export_checkpoint(source, tmp_path / "bundle")
    assert any("the checkpoint's own, rag.ctx_encoder" in note for note in report.notes)
    opened = Bundle.open(tmp_path / "bundle")
    assert opened.manifest.passage_encoder is not None
    ours = TextEncoder.load(opened, opened.manifest.passage_encoder, device="cpu", threads=1)
    passages = [("Iceland", "an island in the north"), ("", "a b c")]
    tokens = ours.tokenizer.encode(passages)
    with torch.no_grad():
        expected = [model(torch.tensor([one.ids])).pooler_output[0].numpy() for one in tokens]
    np.testing.assert_allclose(ours.encode_passages(passages), expected, atol=1e-5)


def test_a_given_passage_encoder_goes_before_the_checkpoints_own(
    end_to_end: tuple[Path, DPRContextEncoder], pair: Pair, tmp_path: Path
) -> None:
    source, model = end_to_end
    other = randomised(DPRContextEncoder(model.config), 6)
    other.save_pretrained(str(tmp_path / "other"))
    for file in (pair.checkpoint.source / "question_encoder_tokenizer").iterdir():
        shutil.copy(file, tmp_path / "other")
    fingerprints = set()
    for given in (None, tmp_path / "other"):
        report = export_checkpoint(
            source, tmp_path / "bundle", context_encoder=given, check=False, force=True
        )
        assert any("is left out: another was given" in note for note in report.notes) == (given is not None)
        fingerprints.add(Bundle.open(tmp_path / "bundle").index_encoder.fingerprint)
    assert len(fingerprints) == 2


def test_missing_weights_are_all_named(pair: Pair, tmp_path: Path) -> None:
    model = RagTokenForGeneration.from_pretrained(pair.checkpoint.source)
    state = model.state_dict()
    gone = [
        "rag.generator.model.encoder.layers.0.fc1.weight",
        "rag.generator.model.decoder.layers.0.fc2.bias",
    ]
    for name in gone:
        del state[name]
    model.save_pretrained(str(tmp_path / "source"), state_dict=state)
    with pytest.raises(ExportError) as error:
        export_checkpoint(tmp_path / "source", tmp_path / "bundle")
    assert all(name.removeprefix("rag.") in str(error.value) for name in gone)


def change(path: Path, **fields: Any) -> None:
    """Set fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_generation_defaults_come_from_the_checkpoint(pair: Pair, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(pair.checkpoint.source, source)
    change(source / "generation_config.json", num_beams=3, max_length=17, length_penalty=0.5)
    change(source / "generation_config.json", early_stopping=True, encoder_repetition_penalty=1.3)
    report = export_checkpoint(source, tmp_path / "bundle", check=False)
    assert any("encoder_repetition_penalty=1.3" in warning for warning in report.warnings)
    options = Generator.load(tmp_path / "bundle").default_options
    assert (options.num_beams, options.max_length, options.length_penalty) == (3, 17, 0.5)
    assert options.early_stopping is True


def test_a_forced_end_token_in_a_list_is_that_token(pair: Pair, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(pair.checkpoint.source, source)
    change(source / "generation_config.json", forced_eos_token_id=[2])
    export_checkpoint(source, tmp_path / "bundle", check=False)
    assert Generator.load(tmp_path / "bundle").default_options.forced_eos_token_id == 2


@pytest.mark.parametrize(
    ("name", "value"), [("forced_eos_token_id", [2, 3]), ("length_penalty", 9.0), ("min_length", 21)]
)
def test_a_default_that_cannot_be_searched_with_is_named_with_its_place(
    pair: Pair, tmp_path: Path, name: str, value: Any
) -> None:
    source = tmp_path / "source"
    shutil.copytree(pair.checkpoint.source, source)
    change(source / "generation_config.json", **{name: value})
    with pytest.raises(ExportError) as error:
        export_checkpoint(source, tmp_path / "bundle", check=False)
    said = str(error.value)
    assert said.startswith(f"the generation config of {source} cannot be a bundle's: ")
    assert f"{name} is {value}, it must be " in said
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "bundle"], "nowhere is not a folder or hub name"),
        (["no/such/folder", "bundle"], "no/such/folder does not exist; give a checkpoint's folder, or"),
        (["/nowhere", "bundle"], "/nowhere does not exist; give a checkpoint's folder, or its name on the"),
        (["./nowhere", "bundle"], "./nowhere does not exist"),
        (["{bart}", "bundle"], "is a bart checkpoint, not a RAG one"),
        (["bundle", "--generator", "{bart}"], "both --question-encoder and --generator are needed"),
        (
            ["bundle", "--question-encoder", "{bart}", "--generator", "{bart}"],
            "is a bart model; supported are dpr, bert",
        ),
        (
            ["bundle", "--question-encoder", "{dpr}", "--generator", "{dpr}"],
            "is a dpr model; supported are bart, t5",
        ),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(
    arguments: list[str], message: str, bart: Path, dpr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(export_command, [a.format(bart=bart, dpr=dpr) for a in arguments])
    assert isinstance(result.exception, ExportError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_encoders_that_do_not_belong_together_are_refused(dpr: Path, bart: Path, tmp_path: Path) -> None:
    context = save_dpr(tmp_path / "context", context=True, projection_dim=9)
    with pytest.raises(ExportError, match=r"vectors of 9 numbers, the question encoder .* of 24"):
        export_checkpoint(
            None, tmp_path / "bundle", question_encoder=dpr, generator=bart, context_encoder=context
        )
    assert not (tmp_path / "bundle").exists()


def test_a_folder_that_is_no_bundle_is_never_replaced(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(ExportError, match="exists and is not a ragengine-bundle"):
        export_checkpoint(pair.checkpoint.source, tmp_path / "thesis", check=False)
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"


def test_a_generation_config_that_transformers_does_not_read_is_named(pair: Pair, tmp_path: Path) -> None:
    """RagSequence's `generate` decodes with its generator's config, and so do we; that is easily missed."""
    source = tmp_path / "source"
    shutil.copytree(pair.checkpoint.source, source)
    change(source / "config.json", architectures=["RagSequenceForGeneration"])
    change(source / "generation_config.json", num_beams=3)
    report = export_checkpoint(source, tmp_path / "bundle", check=False)
    assert any("sets num_beams=3" in w and "give it with each call" in w for w in report.warnings)
    assert Generator.load(tmp_path / "bundle").default_options.num_beams == 1


def test_an_error_after_loading_is_all_that_stderr_holds(pair: Pair, tmp_path: Path) -> None:
    """transformers draws bars for the weights that it loads; without a terminal nobody wants them."""
    source = tmp_path / "source"
    shutil.copytree(pair.checkpoint.source, source)
    change(source / "generation_config.json", num_beams=2, length_penalty=9.0)
    done = run("export", source, tmp_path / "bundle", "--no-check")
    assert done.returncode == 1
    assert done.stderr.startswith(f"ragengine: the generation config of {source} cannot be a bundle's: ")
    assert done.stderr.count("\n") == 1


def test_bars_and_messages_of_the_hub_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = logging.getLogger("huggingface_hub")
    before = hub.level, is_progress_bar_enabled()
    for terminal, inside in ((True, before), (False, (logging.ERROR, False))):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        with quiet():
            assert (hub.level, is_progress_bar_enabled()) == inside
        assert (hub.level, is_progress_bar_enabled()) == before
