"""Which weights a bundle stores, and how many bytes they take."""

import json
from pathlib import Path

import pytest
import torch
from transformers import BartForConditionalGeneration, RagTokenForGeneration

from ragengine import Bundle
from ragengine.errors import ExportError
from ragengine_bench.parity.pairs import Pair
from ragengine_export import export_checkpoint, verification
from ragengine_export.choices import Precision
from tests.support.models import save_bart, save_dpr


def test_one_encoder_for_both_sides_is_stored_once(bart: Path, tmp_path: Path) -> None:
    question = save_dpr(tmp_path / "question", seed=3)
    context = save_dpr(tmp_path / "context", context=True, seed=3)
    export_checkpoint(
        None, tmp_path / "bundle", question_encoder=question, generator=bart, context_encoder=context
    )
    passage_encoder = Bundle.open(tmp_path / "bundle").manifest.passage_encoder
    assert passage_encoder is not None
    assert passage_encoder.path == "question_encoder"
    assert not (tmp_path / "bundle" / "passage_encoder").exists()


def test_tied_tensors_are_stored_once(dpr: Path, tmp_path: Path) -> None:
    """Two embeddings and the head, [V, d_model] each, are one tensor when tied."""
    sizes = {}
    for tied in (True, False):
        generator = save_bart(tmp_path / f"bart{tied}", tie_word_embeddings=tied)
        export_checkpoint(None, tmp_path / f"b{tied}", question_encoder=dpr, generator=generator, check=False)
        sizes[tied] = (tmp_path / f"b{tied}" / "generator" / "weights.bin").stat().st_size
    vocab_size = Bundle.open(tmp_path / "bTrue").manifest.generator.vocab_size
    assert sizes[False] - sizes[True] == 2 * vocab_size * 24 * 4


def test_half_precision_checkpoints_take_half_the_space_and_lose_nothing(pair: Pair, tmp_path: Path) -> None:
    model = RagTokenForGeneration.from_pretrained(pair.checkpoint.source, dtype=torch.float16)
    for name in ("question_encoder_tokenizer", "generator_tokenizer"):
        (tmp_path / "half" / name).mkdir(parents=True)
        for file in (pair.checkpoint.source / name).iterdir():
            (tmp_path / "half" / name / file.name).write_bytes(file.read_bytes())
    model.save_pretrained(str(tmp_path / "half"))
    config = json.loads((tmp_path / "half/config.json").read_text())
    for part in ("question_encoder", "generator"):  # as parts that were saved alone say it
        config[part]["dtype"] = "float16"
    (tmp_path / "half/config.json").write_text(json.dumps(config))
    export_checkpoint(tmp_path / "half", tmp_path / "bundle")  # checked against torch in float32

    def size(bundle: Path) -> int:
        return (bundle / "generator" / "weights.bin").stat().st_size

    assert size(tmp_path / "bundle") < 0.55 * size(pair.bundle)


@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.55), ("int8", 0.4), ("int4", 0.4)])
def test_other_precisions_are_smaller_and_close(
    precision: Precision, share: float, dpr: Path, tmp_path: Path
) -> None:
    """The graphs answer nearly as torch does, and the weights take at most ``share`` of float32's bytes."""
    generator = save_bart(tmp_path / "bart", d_model=64, encoder_ffn_dim=128, decoder_ffn_dim=128)
    sizes, reports = {}, {}
    for chosen in ("fp32", precision):
        path = tmp_path / chosen
        reports[chosen] = export_checkpoint(None, path, chosen, question_encoder=dpr, generator=generator)
        sizes[chosen] = (path / "generator" / "weights.bin").stat().st_size
    assert sizes[precision] < share * sizes["fp32"]
    decoder, expected = (reports[name].checks[3] for name in (precision, "fp32"))
    assert decoder.graph == "generator/decoder.onnx"
    assert expected.difference < decoder.difference < verification.TOLERANCE[precision]
    assert decoder.loss is not None
    assert decoder.loss.token_agreement > 0.7
    assert abs(decoder.loss.log_prob_drop) < 0.5
    encoders = [Bundle.open(tmp_path / name).index_encoder.fingerprint for name in ("fp32", precision)]
    assert encoders[0] == encoders[1]  # an index serves every precision of a model


def test_weights_beyond_float16_are_refused_in_fp16(dpr: Path, tmp_path: Path) -> None:
    generator = save_bart(tmp_path / "bart")
    model = BartForConditionalGeneration.from_pretrained(generator)
    with torch.no_grad():
        model.model.decoder.layers[0].fc1.weight[0, 0] = 7e4
    model.save_pretrained(generator)
    with pytest.raises(ExportError, match=r"fc1.weight holds 7e\+04, more than the 65504 of float16; export"):
        export_checkpoint(
            None, tmp_path / "bundle", "fp16", question_encoder=dpr, generator=generator, check=False
        )
    assert not (tmp_path / "bundle").exists()
