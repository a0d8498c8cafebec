"""Every family of encoders: bare models with a pooling, from text to vectors and from passages to answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModel, AutoTokenizer

from ragengine import Bundle
from ragengine.cli.main import cli
from ragengine.errors import BundleError, ExportError
from ragengine.retrieval.encoder import TextEncoder
from ragengine_export import export_checkpoint
from ragengine_export.choices import Precision
from ragengine_export.cli import export as export_command
from ragengine_export.encoder_families import ENCODERS
from ragengine_export.encoders import load_encoder
from ragengine_export.export import PRECISIONS, _write_encoder
from ragengine_export.verification import TOLERANCE, check_encoder
from ragengine_export.weights import WeightWriter
from tests.support.bundles import rewrite_manifest
from tests.support.models import save_bart, save_dpr
from tests.support.sentence_folders import PASSAGES, QUESTIONS, make_encoder, make_tokenizer


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bart(tmp_path_factory.mktemp("bart"))


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random bare model of each family, with its tokenizer."""
    folder = tmp_path_factory.mktemp("encoders")
    for number, family in enumerate(ENCODERS):
        tokenizer = make_tokenizer(family, model_max_length=40)
        model = make_encoder(family, len(tokenizer), np.random.default_rng(number))
        model.save_pretrained(str(folder / family))
        tokenizer.save_pretrained(str(folder / family))
    return {family: folder / family for family in ENCODERS}


@pytest.mark.parametrize("family", ENCODERS)
def test_vectors_are_those_of_transformers(
    family: str, encoders: dict[str, Path], bart: Path, tmp_path: Path
) -> None:
    """From text, each text alone there and all together here; the padding token is spelled out in one."""
    source = encoders[family]
    export_checkpoint(
        None,
        tmp_path / "bundle",
        question_encoder=source,
        context_encoder=source,
        generator=bart,
        pooling="mean",
    )
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.manifest.passage_encoder is not None
    assert bundle.manifest.passage_encoder.graph == "encoder.onnx"  # one graph for both
    encoder = TextEncoder.load(bundle, bundle.manifest.question_encoder, device="cpu", threads=1)
    model, tokenizer = AutoModel.from_pretrained(source), AutoTokenizer.from_pretrained(source)

    def theirs(*texts: str) -> Any:
        encoded = tokenizer(*texts, return_tensors="pt", truncation=True)
        encoded.pop("token_type_ids", None)  # RAG gives none
        with torch.no_grad():
            return model(**encoded).last_hidden_state[0].mean(dim=0).numpy()

    questions = [*QUESTIONS, f"the {tokenizer.pad_token} sea {tokenizer.pad_token}{tokenizer.pad_token} book"]
    ours = encoder.encode_tokens(encoder.tokenize_questions(questions))
    np.testing.assert_allclose(ours, [theirs(question) for question in questions], atol=2e-5)
    passages = [(title or "a", text) for title, text in PASSAGES]  # transformers takes no empty title
    np.testing.assert_allclose(
        encoder.encode_passages(passages), [theirs(*passage) for passage in passages], atol=2e-5
    )


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", ENCODERS)
def test_every_precision_is_close(
    family: str, precision: Precision, encoders: dict[str, Path], tmp_path: Path
) -> None:
    encoder = load_encoder(str(encoders[family]), "question", "max")
    with WeightWriter(tmp_path) as weights:
        _write_encoder(encoder, tmp_path, weights, precision)
    assert check_encoder(tmp_path / "encoder.onnx", encoder).difference < TOLERANCE[precision] / 2


@pytest.mark.parametrize("family", ENCODERS)
def test_commands_from_export_to_eval(
    family: str, encoders: dict[str, Path], bart: Path, tmp_path: Path
) -> None:
    """The generator has another tokenizer, another width and another longest input."""
    lines = [json.dumps({"id": str(n), "title": t, "text": x}) + "\n" for n, (t, x) in enumerate(PASSAGES)]
    (tmp_path / "passages.jsonl").write_text("".join(lines))
    (tmp_path / "questions.jsonl").write_text('{"question": "what is iceland", "answers": ["an island"]}\n')
    bundle, index, source = str(tmp_path / "bundle"), str(tmp_path / "index"), str(encoders[family])

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    joined = ["--question-encoder", source, "--context-encoder", source, "--generator", str(bart)]
    run("export", bundle, *joined, "--pooling", "cls", "--no-check")
    run("index", "build", str(tmp_path / "passages.jsonl"), index, "--bundle", bundle)
    answer = json.loads(run("ask", bundle, index, "what is iceland?", "--json"))
    assert {document["id"] for document in answer["documents"]} == {"0", "1", "2"}
    report = json.loads(run("eval", bundle, index, str(tmp_path / "questions.jsonl"), "--json"))
    assert report["n"] == 1


@pytest.mark.parametrize("family", ENCODERS)
def test_a_bare_model_needs_a_pooling(
    family: str, encoders: dict[str, Path], bart: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ExportError, match=f"is a bare {family} model: nothing .* say it with --pooling, one of"
    ):
        export_checkpoint(None, tmp_path / "bundle", question_encoder=encoders[family], generator=bart)
    assert not (tmp_path / "bundle").exists()


def test_poolings_that_cannot_be(encoders: dict[str, Path], bart: Path, tmp_path: Path) -> None:
    given = {"question_encoder": encoders["distilbert"], "generator": bart}
    with pytest.raises(ExportError, match="has no weights of a pooler"):
        export_checkpoint(None, tmp_path / "bundle", pooling="pooler", **given)
    with pytest.raises(ExportError, match="pooling is 'middle'; it must be one of cls, mean, max"):
        export_checkpoint(None, tmp_path / "bundle", pooling="middle", **given)
    dpr = {"question_encoder": save_dpr(tmp_path / "dpr"), "generator": bart}
    with pytest.raises(ExportError, match=r"pooling is mean, but .* leave out --pooling"):
        export_checkpoint(None, tmp_path / "bundle", pooling="mean", **dpr)
    result = CliRunner().invoke(export_command, ["bundle", "--pooling", "middle"])
    assert result.exit_code == 2


def test_an_unknown_family_is_refused_with_those_that_are_known(bart: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="is a bart model; supported are dpr, bert, roberta, xlm-roberta"):
        export_checkpoint(None, tmp_path / "bundle", question_encoder=bart, generator=bart, pooling="mean")


def test_each_pooling_and_family_has_its_own_fingerprint(
    encoders: dict[str, Path], bart: Path, tmp_path: Path
) -> None:
    """The same weights are another encoder where they are read in another way."""
    found = []
    for pooling in ("cls", "mean", "max"):
        export_checkpoint(
            None,
            tmp_path / "bundle",
            question_encoder=encoders["bert"],
            generator=bart,
            pooling=pooling,
            check=False,
            force=True,
        )
        found.append(Bundle.open(tmp_path / "bundle").index_encoder.fingerprint)
    assert len(set(found)) == 3


def test_a_text_longer_than_the_positions_of_a_roberta_is_refused(
    encoders: dict[str, Path], bart: Path, tmp_path: Path
) -> None:
    """Its table has rows that no position reads; a forged manifest would read beyond it."""
    bundle = tmp_path / "bundle"
    export_checkpoint(
        None, bundle, question_encoder=encoders["roberta"], generator=bart, pooling="cls", check=False
    )
    content = json.loads((bundle / "manifest.json").read_text())
    assert content["question_encoder"]["position_offset"] == 2
    content["question_encoder"]["tokenizer"]["max_length"] = 63
    rewrite_manifest(bundle, **content)
    with pytest.raises(BundleError, match=r"max_length is 63, .* has 64 positions, of which 2 are not used"):
        Bundle.open(bundle)
    content["question_encoder"]["tokenizer"]["max_length"] = 62
    rewrite_manifest(bundle, **content)
    Bundle.open(bundle)
