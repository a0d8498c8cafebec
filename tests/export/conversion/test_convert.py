"""Checkpoints of TensorFlow and Flax give the weights and the answers of the same model in PyTorch."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnxruntime as ort
import pytest
import torch
import transformers

from ragengine import Bundle, Generator
from ragengine_export import export_checkpoint
from ragengine_export.loading import load_model
from tests.export.conversion.conftest import expected
from tests.export.conversion.written.make import DOC_SCORES, INPUT_IDS, LABELS, PAD, weight

CLASSES = {
    "question_encoder": "DPRQuestionEncoder",
    "context_encoder": "DPRContextEncoder",
    "bert": "BertModel",
    "roberta": "RobertaModel",
    "mpnet": "MPNetModel",
    "electra": "ElectraModel",
    "distilbert": "DistilBertModel",
    "bart": "BartForConditionalGeneration",
    "bart_shards": "BartForConditionalGeneration",
    "bart_safetensors": "BartForConditionalGeneration",
    "mbart": "MBartForConditionalGeneration",
    "pegasus": "PegasusForConditionalGeneration",
    "marian": "MarianMTModel",
    "blenderbot_small": "BlenderbotSmallForConditionalGeneration",
    "mt5": "MT5ForConditionalGeneration",
    "t5": "T5ForConditionalGeneration",
    "t5_gated": "T5ForConditionalGeneration",
    "t5_gated_shards": "T5ForConditionalGeneration",
    "t5_gated_safetensors": "T5ForConditionalGeneration",
    "rag_token": "RagTokenForGeneration",
    "rag_token_shards": "RagTokenForGeneration",
    "rag_token_safetensors": "RagTokenForGeneration",
    "rag_sequence": "RagSequenceForGeneration",
    "rag_model": "RagTokenForGeneration",
}
CLASSES |= {
    f"flax_{name}": kind
    for name, kind in CLASSES.items()
    if not name.startswith(("rag", "question", "context", "mpnet"))
}
IDS = np.array(INPUT_IDS)
MASK = (IDS != PAD).astype(np.int64)


@pytest.mark.parametrize(("name", "kind"), CLASSES.items(), ids=CLASSES)
def test_weights_are_those_of_pytorch(name: str, kind: str, written: Path) -> None:
    model = load_model(getattr(transformers, kind), str(written / name))
    compared = 0
    for path, tensor in model.state_dict().items():
        own = path.removeprefix("rag.") if name == "rag_model" else path
        tied = r"(lm_head|(model\.)?(encoder|decoder)\.embed_tokens)\.weight$"
        if "t5" in name:
            own_head = "gated" in name or "mt5" in name
            own = re.sub(tied.replace("lm_head|", "") if own_head else tied, "shared.weight", own)
        else:
            own = re.sub(tied, "model.shared.weight", own)
        if own.endswith("embed_positions.weight") and ("pegasus" in name or "marian" in name):
            continue  # sinusoids
        if tensor.is_floating_point():
            np.testing.assert_array_equal(tensor, weight(own, tuple(tensor.shape)), err_msg=path)
            compared += 1
    assert compared > 15


@pytest.mark.parametrize(("name", "kind"), CLASSES.items(), ids=CLASSES)
def test_pytorch_computes_what_the_class_that_wrote_it_does(name: str, kind: str, written: Path) -> None:
    model = load_model(getattr(transformers, kind), str(written / name))
    inputs = {"input_ids": torch.tensor(IDS), "attention_mask": torch.tensor(MASK)}
    labels = torch.tensor([LABELS] * len(IDS))
    parts = model.rag if hasattr(model, "rag") else None
    computed = {}
    with torch.no_grad():
        if "vectors" in expected(written / name):
            output = (parts.question_encoder if parts else model)(**inputs)
            pooled = getattr(output, "pooler_output", None)
            computed["vectors"] = output.last_hidden_state[:, 0] if pooled is None else pooled
        if "log_probs" in expected(written / name):
            generator = parts.generator if parts else model
            logits = generator(**inputs, decoder_input_ids=labels).logits[:, :-1]
            computed["log_probs"] = logits.log_softmax(-1).gather(2, labels[:, 1:, None])[..., 0]
    assert computed
    for what, values in computed.items():
        np.testing.assert_allclose(values, expected(written / name)[what], atol=2e-5, err_msg=what)


@pytest.mark.parametrize("name", ["rag_token", "rag_sequence", "rag_model"])
def test_a_rag_checkpoint_answers_as_tensorflow_does(name: str, written: Path, tmp_path: Path) -> None:
    """Its question vectors, log p(label | document), scores and, with one beam and with three, its tokens."""
    report = export_checkpoint(
        written / name, tmp_path / "bundle", context_encoder=written / "context_encoder"
    )
    assert all(check.difference < 2e-4 for check in report.checks)
    found = expected(written / name)
    _check_vectors(tmp_path / "bundle" / "question_encoder", found["vectors"])
    _check_vectors(tmp_path / "bundle" / "passage_encoder", expected(written / "context_encoder")["vectors"])
    generator = Generator.load(tmp_path / "bundle", device="cpu")
    contexts = IDS[None], MASK[None], np.array(DOC_SCORES, np.float32)
    labels = np.array([LABELS])
    output = generator.forward(*contexts, labels)
    np.testing.assert_allclose(output.document_log_probs[0], found["log_probs"], atol=1e-4)
    if name != "rag_model":  # which TensorFlow has no marginalisation for
        np.testing.assert_allclose(generator.score(*contexts, labels), found["score"], atol=1e-4)
        for beams in (1, 3):
            options = dataclasses.replace(generator.default_options, num_beams=beams, max_length=12)
            best = generator.generate(*contexts, options)[0][0]
            assert [LABELS[0], *best.token_ids] == found[f"tokens_{beams}"][0]


@pytest.mark.parametrize(
    ("encoder", "generator"),
    [
        ("question_encoder", "bart_shards"),
        ("bert", "bart"),
        ("flax_bert", "flax_bart"),
        ("bert", "bart_safetensors"),
        ("question_encoder", "t5"),
        ("question_encoder", "t5_gated"),
        ("flax_bert", "flax_t5"),
        ("question_encoder", "marian"),
    ],
)
def test_joined_checkpoints(encoder: str, generator: str, written: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    parts = {"question_encoder": written / encoder, "generator": written / generator}
    export_checkpoint(None, bundle, **parts, pooling="pooler" if "bert" in encoder else None)
    _check_vectors(bundle / "question_encoder", expected(written / encoder)["vectors"])
    output = Generator.load(bundle, device="cpu").forward(
        IDS[None], MASK[None], np.array(DOC_SCORES, np.float32), np.array([LABELS])
    )
    np.testing.assert_allclose(
        output.document_log_probs[0], expected(written / generator)["log_probs"], atol=1e-4
    )


def test_generation_defaults_are_read_beside_the_weights(
    copied: Callable[[str], Path], tmp_path: Path
) -> None:
    """From `generation_config.json`; from config.json where there is none."""
    folder = copied("rag_token")
    settings = json.loads((folder / "generation_config.json").read_text("utf-8"))
    (folder / "generation_config.json").write_text(json.dumps(settings | {"num_beams": 3}), "utf-8")
    export_checkpoint(folder, tmp_path / "bundle", check=False)
    assert Bundle.open(tmp_path / "bundle").manifest.generation["num_beams"] == 3
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"num_beams": 2}), "utf-8")
    export_checkpoint(folder, tmp_path / "bundle", check=False, force=True)
    assert Bundle.open(tmp_path / "bundle").manifest.generation["num_beams"] == 2


def test_pytorch_weights_go_first(copied: Callable[[str], Path]) -> None:
    folder = copied("bart")
    model = load_model(transformers.BartForConditionalGeneration, str(folder))
    with torch.no_grad():
        model.final_logits_bias += 1
    model.save_pretrained(str(folder))
    again = load_model(transformers.BartForConditionalGeneration, str(folder))
    torch.testing.assert_close(again.final_logits_bias, model.final_logits_bias)


def test_tensorflows_head_is_shared_whatever_the_config_says(copied: Callable[[str], Path]) -> None:
    folder = copied("bart")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}), "utf-8")
    model = load_model(transformers.BartForConditionalGeneration, str(folder))
    torch.testing.assert_close(model.lm_head.weight, model.model.shared.weight)
    torch.testing.assert_close(model.model.decoder.embed_tokens.weight, model.model.shared.weight)


def test_a_bert_without_pooler_and_with_heads_of_pretraining(copied: Callable[[str], Path]) -> None:
    folder = copied("bert")
    with h5py.File(folder / "tf_model.h5", "r+") as file:
        del file["bert/tf_bert_model/bert/pooler"]
        file["mlm___cls/tf_bert_model/mlm___cls/predictions/transform/dense/kernel:0"] = np.ones(
            (12, 12), "f4"
        )
        file["nsp___cls/tf_bert_model/nsp___cls/seq_relationship/bias:0"] = np.ones(2, "f4")
    model = load_model(transformers.BertModel, str(folder), optional="pooler.")
    assert model.pooler is None


@pytest.mark.parametrize("name", ["pegasus", "marian"])
def test_sinusoids_need_not_be_stored(name: str, written: Path, tmp_path: Path) -> None:
    """In a PyTorch checkpoint either: those of older releases are without."""
    kind = getattr(transformers, CLASSES[name])
    model = load_model(kind, str(written / name))
    state = {key: value for key, value in model.state_dict().items() if "embed_positions" not in key}
    model.save_pretrained(str(tmp_path), state_dict=state)
    again = load_model(kind, str(tmp_path)).state_dict()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(again[key], value)


def _check_vectors(folder: Path, vectors: Any) -> None:
    session = ort.InferenceSession(folder / "encoder.onnx")
    found = session.run(None, {"input_ids": IDS, "attention_mask": MASK})[0]
    np.testing.assert_allclose(found, vectors, atol=1e-5)
