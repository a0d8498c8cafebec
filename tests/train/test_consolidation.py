"""`ragengine consolidate`: the networks of the checkpoint are those it was made of, and it exports."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from transformers import DPRQuestionEncoder, RagSequenceForGeneration, RagTokenForGeneration, RagTokenizer

from ragengine.errors import ExportError, OptionsError
from ragengine_export import export_checkpoint
from ragengine_export.families import generator_type
from ragengine_export.loading import load_config, load_model
from ragengine_train import consolidate
from ragengine_train.cli import consolidate as command
from tests.train.test_families import logits, write_generator


@pytest.mark.parametrize("name", ["bart", "flan-t5"])
def test_networks_are_joined(name: str, world: Path, tmp_path: Path) -> None:
    """RAG-Token of the toy BART with a passage encoder, RAG-Sequence of a T5 without one."""
    encoder, generator = world / "start" / "question_encoder", world / "start" / "generator"
    options = ["--context-encoder", str(encoder), "--set", "num_beams=3", "--n-docs", "2"]
    if name == "flan-t5":
        generator = tmp_path / "generator"
        write_generator(name, generator)
        options = ["--type", "sequence", "--prefix", "ask: ", "--max-combined-length", "100"]
    else:
        options += ["--max-combined-length", "60"]
    folder = tmp_path / "rag"
    made = ["--question-encoder", str(encoder), "--generator", str(generator), *options]
    done = CliRunner().invoke(command, [str(folder), *made])
    assert (done.exit_code, done.output) == (0, f"{folder}\n"), done.exception
    model = (RagSequenceForGeneration if name == "flan-t5" else RagTokenForGeneration).from_pretrained(folder)
    kind = load_config(str(generator)).model_type
    expected = load_model(generator_type(name, kind).model, str(generator))
    torch.testing.assert_close(logits(model.generator), logits(expected), rtol=0, atol=0)
    ids = torch.tensor([[2, 7, 8, 3]])
    with torch.no_grad():
        found = model.question_encoder.eval()(ids)[0]
        right = DPRQuestionEncoder.from_pretrained(encoder).eval()(ids)[0]
    torch.testing.assert_close(found, right, rtol=0, atol=0)
    assert (folder / "context_encoder").exists() == (name == "bart")
    assert model.config.n_docs == (2 if name == "bart" else 5)
    if name == "bart":
        assert model.generation_config.num_beams == 3
    else:
        assert model.config.generator.prefix == "ask: "
    own = RagTokenizer.from_pretrained(folder).question_encoder
    assert own("who leads a town?").input_ids
    assert own.model_max_length == 40, "what the encoder has positions for"
    report = export_checkpoint(folder, tmp_path / "bundle")
    assert max(check.max_abs_difference for check in report.checks) < 1e-3


def test_what_does_not_fit_is_said(world: Path, tmp_path: Path) -> None:
    encoder, generator = world / "start" / "question_encoder", world / "start" / "generator"
    with pytest.raises(OptionsError, match=r"max_combined_length is 300, and its network has 64 positions"):
        consolidate(encoder, generator, tmp_path / "rag")
    with pytest.raises(OptionsError, match=r"model\.generation\.beams: no field of GenerationConfig"):
        consolidate(encoder, generator, tmp_path / "rag", max_combined_length=60, generation={"beams": 2})
    with pytest.raises(ExportError):
        consolidate(generator, encoder, tmp_path / "rag", max_combined_length=60)
    assert not (tmp_path / "rag").exists()
