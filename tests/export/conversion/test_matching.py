"""Weights that are not those of the model: all faults are told in one error, before anything is read."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from transformers import (
    BartForConditionalGeneration,
    DPRConfig,
    DPRQuestionEncoder,
    T5ForConditionalGeneration,
)

from ragengine.errors import ExportError
from ragengine_export.conversion.names import stored_weight
from ragengine_export.loading import load_model

LAYER = "model/tf_bart_for_conditional_generation/model/decoder/layers.1"


@pytest.mark.parametrize(
    ("path", "name", "shape"),
    [
        ("/bert/tf_bert_model/bert/encoder/layer_._0/output/dense/kernel:0", "dense.weight", (3, 2)),
        ("/bert/tf_bert_model/bert/encoder/layer_._11/output/LayerNorm/gamma:0", "LayerNorm.weight", (2, 3)),
        ("/a/nsp___cls/seq_relationship/beta:0", "a.cls.seq_relationship.bias", (2, 3)),
        ("/shared/shared/shared/embeddings:0", "shared.shared.shared.weight", (2, 3)),
        ("/model/decoder/layers.0/fc1/bias:0", "model.decoder.layers.0.fc1.bias", (2, 3)),
        ("/encoder/layers/0/fc1/scale", "encoder.layers.0.fc1.weight", (2, 3)),
        ("model.shared.embedding", "model.shared.weight", (2, 3)),
    ],
)
def test_names_and_layouts(path: str, name: str, shape: tuple[int, int]) -> None:
    weight = stored_weight(Path("w.h5"), path, (2, 3))
    assert weight.name.endswith(name)
    assert weight.shape == shape
    assert "_._" not in weight.name
    assert "___" not in weight.name


def test_all_faults_are_told_at_once(copied: Callable[[str], Path]) -> None:
    folder = copied("bart")
    with h5py.File(folder / "tf_model.h5", "r+") as file:
        del file[f"{LAYER}/fc1/kernel:0"]
        del file["final_logits_bias"]
        del file[f"{LAYER}/fc2/bias:0"]
        file[f"{LAYER}/fc2/bias:0"] = np.zeros(5, "f4")
        file["classification_head/dense/kernel:0"] = np.zeros((2, 2), "f4")
    with pytest.raises(ExportError) as refused:
        load_model(BartForConditionalGeneration, str(folder))
    assert str(refused.value) == (
        f"The weights of {folder} are not those of a BartForConditionalGeneration of its config.json: "
        "model.decoder.layers.1.fc2.bias has shape [5] instead of [12]; "
        "/classification_head/dense/kernel:0 is left over; "
        "final_logits_bias is missing; model.decoder.layers.1.fc1.weight is missing."
    )


def test_weights_of_another_class_are_refused(written: Path, copied: Callable[[str], Path]) -> None:
    with pytest.raises(ExportError, match=r"question_encoder\.bert_model\.\S+ is missing"):
        load_model(DPRQuestionEncoder, str(written / "context_encoder"))
    folder = copied("t5")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"num_decoder_layers": 3}), "utf-8")
    with pytest.raises(
        ExportError, match=r"decoder\.block\.2\.layer\.0\.SelfAttention\.q\.weight is missing"
    ):
        load_model(T5ForConditionalGeneration, str(folder))


def test_a_shard_that_is_not_there_is_named(copied: Callable[[str], Path]) -> None:
    folder = copied("bart_shards")
    shard = sorted(folder.glob("tf_model-*.h5"))[1]
    shard.unlink()
    with pytest.raises(ExportError, match=re.escape(f"{shard} cannot be read: No such file")):
        load_model(BartForConditionalGeneration, str(folder))


def test_shards_are_in_the_folder(copied: Callable[[str], Path]) -> None:
    folder = copied("bart_shards")
    index = folder / "tf_model.h5.index.json"
    content = json.loads(index.read_text("utf-8"))
    content["weight_map"] = dict.fromkeys(content["weight_map"], "../bart/tf_model.h5")
    index.write_text(json.dumps(content), "utf-8")
    with pytest.raises(ExportError, match="a checkpoint's files are in its own folder"):
        load_model(BartForConditionalGeneration, str(folder))


def test_copies_of_one_weight_must_agree(copied: Callable[[str], Path]) -> None:
    """TensorFlow's T5 stores its embedding three times."""
    folder = copied("t5")
    with h5py.File(folder / "tf_model.h5", "r+") as file:
        file["encoder/shared/shared/embeddings:0"][3, 4] += 1
    with pytest.raises(ExportError, match=r"/shared/shared/embeddings:0 differ and are one weight"):
        load_model(T5ForConditionalGeneration, str(folder))


def test_a_projection_and_weights_that_nothing_reads(copied: Callable[[str], Path]) -> None:
    """DPR with a projection, and with the pooler that its TensorFlow class had in earlier versions."""
    folder = copied("question_encoder")
    values = np.arange(84, dtype=np.float32).reshape(12, 7)
    scope = "question_encoder/tfdpr_question_encoder/question_encoder"
    with h5py.File(folder / "tf_model.h5", "r+") as file:
        file[f"{scope}/encode_proj/kernel:0"] = values
        file[f"{scope}/encode_proj/bias:0"] = np.zeros(7, "f4")
        file[f"{scope}/bert_model/pooler/dense/kernel:0"] = np.zeros((12, 12), "f4")
    DPRConfig.from_pretrained(folder, projection_dim=7).save_pretrained(folder)
    model = load_model(DPRQuestionEncoder, str(folder))
    np.testing.assert_array_equal(model.question_encoder.encode_proj.weight.detach(), values.T)
