"""Every generator by the commands: export, index build, ask and eval; and what the registry refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from transformers import LEDConfig, MarianConfig, MarianMTModel, T5Config

from ragengine import Bundle
from ragengine.cli.main import cli
from ragengine.errors import ExportError
from ragengine_bench.checkpoints.generators import GENERATORS as RANDOM
from ragengine_bench.checkpoints.rag_checkpoint import random_spec, write_checkpoint
from ragengine_export import export_checkpoint
from ragengine_export.families import GENERATORS, generator_shape, generator_type
from ragengine_export.graphs.t5 import T5Shape
from tests.support.models import save_dpr, save_generator

PRECISIONS = ("fp32", "fp16", "int8", "int4")
SMALL: dict[str, Any] = {
    "n_docs": 2, "n_passages": 12, "question_layers": 1, "encoder_layers": 1, "decoder_layers": 1,
    "eos_shift": -3.0,
}  # fmt: skip


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize(("number", "name"), list(enumerate(RANDOM)), ids=lambda value: str(value))
def test_from_a_checkpoint_to_measured_answers(number: int, name: str, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(random_spec(7, model_type=name, **SMALL), tmp_path)
    precision = PRECISIONS[number % len(PRECISIONS)]
    bundle, index, questions = tmp_path / "bundle", tmp_path / "index", tmp_path / "questions.jsonl"
    assert "generator/decoder.onnx" in run("export", checkpoint.source, bundle, "--precision", precision)
    opened = Bundle.open(bundle)
    assert opened.manifest.generator.family == GENERATORS[_model_type(name)].graphs.name
    assert {path.name for path in (bundle / "generator").iterdir()} >= {"tokenizer.json", "weights.bin"}
    run("index", "build", checkpoint.passages_file, index, "--bundle", bundle,
        "--embeddings", checkpoint.embeddings_file)  # fmt: skip
    answer = json.loads(run("ask", bundle, index, "--device", "cpu", "--json", "Where is Kyoto?"))
    assert len(answer["documents"]) == 2
    line = {"question": "Where is Kyoto?", "answers": [answer["answer"], "other"]}
    questions.write_text(json.dumps(line), "utf-8")
    report = json.loads(run("eval", bundle, index, questions, "--device", "cpu", "--json"))
    assert report["exact_match"] == 1


def _model_type(name: str) -> str:
    return {"flan-t5": "t5", "byt5": "t5", "mbart-50": "mbart"}.get(name, name)


def test_a_generator_of_another_type_is_refused_with_the_list(tmp_path: Path) -> None:
    dpr = save_dpr(tmp_path / "dpr")
    LEDConfig().save_pretrained(tmp_path / "led")
    with pytest.raises(ExportError) as refused:
        export_checkpoint(None, tmp_path / "b", question_encoder=dpr, generator=tmp_path / "led")
    assert str(refused.value).endswith(f"led model; supported are {', '.join(GENERATORS)}.")


def test_a_marian_with_two_vocabularies_is_refused(tmp_path: Path) -> None:
    config = MarianConfig(
        vocab_size=40, decoder_vocab_size=50, share_encoder_decoder_embeddings=False, pad_token_id=39,
        d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1, decoder_attention_heads=1,
        encoder_ffn_dim=8, decoder_ffn_dim=8, max_position_embeddings=16, decoder_start_token_id=39,
    )  # fmt: skip
    with pytest.raises(ExportError, match=r"reads 40 tokens and writes 50 others"):
        generator_shape("marian", config, dict(MarianMTModel(config).state_dict()))


def test_an_activation_that_no_graph_has_is_refused() -> None:
    with pytest.raises(ExportError, match="uses the activation 'mish'; supported are gelu"):
        generator_shape("x", T5Config(feed_forward_proj="mish"), {})


def test_the_tables_of_relative_positions_are_transformers_own() -> None:
    shape = generator_shape("x", T5Config(), {})
    assert isinstance(shape, T5Shape)
    assert (len(shape.encoder_buckets), len(shape.decoder_buckets)) == (257, 129)
    assert shape.decoder_buckets[:17] == (*range(17),)
    assert (shape.decoder_buckets[-1], shape.encoder_buckets[0], shape.encoder_buckets[-1]) == (31, 15, 31)
    assert shape.encoder_buckets[128] == 0


def test_heads_that_are_wider_than_the_model_are_exported(tmp_path: Path) -> None:
    """T5's attention is as wide as its heads say, mT5-small's narrower than d_model and T5-11b's wider."""
    for d_kv in (3, 40):
        source = save_generator(tmp_path / f"t5-{d_kv}", "t5", d_kv=d_kv, d_model=24, encoder_heads=2)
        dpr = save_dpr(tmp_path / f"dpr-{d_kv}")
        export_checkpoint(None, tmp_path / f"b-{d_kv}", question_encoder=dpr, generator=source)
        spec = Bundle.open(tmp_path / f"b-{d_kv}").manifest.generator
        assert (spec.width, spec.num_heads * spec.head_size, spec.max_positions) == (24, 2 * d_kv, None)


def test_every_type_names_its_class() -> None:
    for name, row in GENERATORS.items():
        assert row.model.config_class.model_type == name
        assert generator_type("x", name) is row
