"""Every field of RagConfig changes our answers as it changes transformers', or neither."""

from __future__ import annotations

import inspect
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import load_from_disk
from transformers import (
    PretrainedConfig,
    RagConfig,
    RagSequenceForGeneration,
    RagTokenForGeneration,
    RagTokenizer,
)
from transformers.models.rag.retrieval_rag import CustomHFIndex

from ragengine import Generator, RagEngine
from ragengine.indexing.build import build_index
from ragengine_bench.checkpoints.corpus import random_questions
from ragengine_bench.checkpoints.rag_checkpoint import Checkpoint, random_spec, write_checkpoint
from ragengine_bench.parity.margins import RecordingBart
from ragengine_bench.parity.reference import RecordingRetriever
from ragengine_export import export_checkpoint

CLASSES = {"token": RagTokenForGeneration, "sequence": RagSequenceForGeneration}
LABELS = [2, 0, 30, 40, 2]
SEARCH = {"num_beams": 2, "num_return_sequences": 2, "max_length": 5}

NOWHERE = "-"
# Field: a value that is not the checkpoint's, and the classes in whose answers it shows.
FIELDS: dict[str, tuple[Any, str]] = {
    "title_sep": (" ~~ ", "token sequence"),
    "doc_sep": (" ?? ", "token sequence"),
    "n_docs": (2, "token sequence"),
    "max_combined_length": (23, "token sequence"),
    "do_deduplication": (False, "sequence"),
    # get_nll of RAG-Sequence takes it before the generator's: which first token is not scored
    "bos_token_id": (7, NOWHERE),
    # `forward` alone reads the next two, where it has labels; `generate` says True for both
    "exclude_bos_score": (True, NOWHERE),
    "do_marginalize": (True, NOWHERE),
    "output_retrieved": (True, NOWHERE),
    "use_cache": (False, NOWHERE),
    # the generator's own are read
    "prefix": ("never read: ", NOWHERE),
    "vocab_size": (99, NOWHERE),
    "pad_token_id": (9, NOWHERE),
    "eos_token_id": (9, NOWHERE),
    "decoder_start_token_id": (9, NOWHERE),
    # where transformers' RagRetriever finds an index: ours is given beside the bundle
    "retrieval_vector_size": (99, NOWHERE),
    "retrieval_batch_size": (1, NOWHERE),
    "dataset": ("other", NOWHERE),
    "dataset_split": ("test", NOWHERE),
    "dataset_revision": ("main", NOWHERE),
    "index_name": ("exact", NOWHERE),
    "index_path": ("elsewhere", NOWHERE),
    "passages_path": ("elsewhere", NOWHERE),
    "use_dummy_dataset": (True, NOWHERE),
}
# `RagSequenceForGeneration.generate` ranks by the loss that these change: a smoothed one, or one sum for all
# candidates, with which it returns the first or fails.  We rank by the likelihood, and the export says so.
LOSS: dict[str, Any] = {"reduce_loss": True, "label_smoothing": 0.1}
# Sub-configs are models of their own; without an encoder there is no RAG.
PARTS = {"question_encoder", "generator", "is_encoder_decoder"}


def test_every_field_is_listed() -> None:
    """A field that a new release of transformers adds fails here."""
    own = set(inspect.signature(RagConfig.__init__).parameters)
    inherited = set(inspect.signature(PretrainedConfig.__init__).parameters)
    special = {"bos_token_id", "pad_token_id", "eos_token_id", "decoder_start_token_id", "prefix"}
    # transformers 4 has the sub-configs in **kwargs, and forced_eos_token_id, an option of generation
    own -= (inherited - special - {"is_encoder_decoder"}) | {"self", "kwargs", "forced_eos_token_id"}
    assert own | PARTS == set(FIELDS) | set(LOSS) | PARTS


@dataclass(frozen=True)
class Given:
    checkpoint: Checkpoint
    index: Path
    questions: list[str]
    folder: Path


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("fields")
    spec = random_spec(11, n_docs=4, forced_bos=False, forced_eos=False, max_combined_length=90, tied=True)
    checkpoint = write_checkpoint(spec, folder)
    export_checkpoint(checkpoint.source, folder / "plain", check=False)
    build_index(
        checkpoint.passages_file,
        folder / "index",
        bundle=folder / "plain",
        embeddings=checkpoint.embeddings_file,
    )
    return Given(checkpoint, folder / "index", random_questions(np.random.default_rng(4), 6), folder)


def changed(given: Given, kind: str, name: str, changes: dict[str, Any]) -> Path:
    """The checkpoint with some fields of its config.json changed."""
    source = given.folder / f"{kind}-{name}"
    if not source.exists():
        shutil.copytree(given.checkpoint.source, source)
        config = json.loads((source / "config.json").read_text()) | changes
        config["architectures"] = [CLASSES[kind].__name__]
        (source / "config.json").write_text(json.dumps(config))
    return source


@torch.no_grad()
def theirs(given: Given, source: Path, kind: str) -> dict[str, Any]:
    """transformers' documents, answers under ``SEARCH``, and likelihoods."""
    model = CLASSES[kind].from_pretrained(source, dtype=torch.float32).eval()
    if kind == "sequence":  # its searches by document attend to padding in transformers 5
        model.rag.generator.__class__ = RecordingBart
        model.rag.generator.calls = []
    tokenizer = RagTokenizer.from_pretrained(given.checkpoint.source)
    dataset = load_from_disk(str(given.checkpoint.dataset))
    dataset.load_faiss_index("embeddings", str(given.checkpoint.faiss_index))
    config = model.config
    retriever = RecordingRetriever(
        config,
        question_encoder_tokenizer=tokenizer.question_encoder,
        generator_tokenizer=tokenizer.generator,
        index=CustomHFIndex(config.retrieval_vector_size, dataset),
    )
    model.set_retriever(retriever)
    answers, contexts, scores = [], [], []
    for question in given.questions:
        encoded = tokenizer([question], return_tensors="pt")
        inputs = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
        answers.append([cut(row[1:]) for row in model.generate(**inputs, **SEARCH).tolist()])
        output = model(**inputs, labels=torch.tensor([LABELS]), output_retrieved=True)
        shape = (1, config.n_docs, -1)
        contexts.append(
            (
                output.context_input_ids.view(shape).numpy(),
                output.context_attention_mask.view(shape).numpy(),
                output.doc_scores.numpy(),
            )
        )
        scores.append(-float(output.loss))
    return {"answers": answers, "contexts": contexts, "scores": scores}


def ours(given: Given, source: Path, kind: str, contexts: list[Any]) -> dict[str, Any]:
    bundle = source / "bundle"
    export_checkpoint(source, bundle, check=False)
    engine = RagEngine.load(bundle, index=given.index, device="cpu", threads=1)
    generator = Generator.load(bundle, device="cpu", threads=1)
    return {
        "answers": [
            [
                list(map(int, hypothesis.token_ids))
                for hypothesis in engine.generate(question, **SEARCH).hypotheses
            ]
            for question in given.questions
        ],
        "scores": [float(generator.score(*context, np.array([LABELS]))[0]) for context in contexts],
    }


def cut(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(2) + 1] if 2 in tokens else tokens


@pytest.fixture(scope="module")
def plain(given: Given) -> dict[str, Any]:
    return {kind: theirs(given, changed(given, kind, "plain", {}), kind) for kind in CLASSES}


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("field", [name for name, (_, shows) in FIELDS.items() if shows != NOWHERE])
def test_a_field_that_shows(given: Given, plain: dict[str, Any], field: str, kind: str) -> None:
    value, shows = FIELDS[field]
    check(given, plain, field, {field: value}, kind, differs=kind in shows.split())


@pytest.mark.parametrize("kind", CLASSES)
def test_the_fields_that_show_nowhere(given: Given, plain: dict[str, Any], kind: str) -> None:
    """All at once; the next test says which one, where this fails."""
    values = {name: value for name, (value, shows) in FIELDS.items() if shows == NOWHERE}
    check(given, plain, "nowhere", values, kind, differs=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("field", [name for name, (_, shows) in FIELDS.items() if shows == NOWHERE])
def test_a_field_that_shows_nowhere(given: Given, plain: dict[str, Any], field: str, kind: str) -> None:
    check(given, plain, field, {field: FIELDS[field][0]}, kind, differs=False)


def check(
    given: Given, plain: dict[str, Any], name: str, changes: dict[str, Any], kind: str, *, differs: bool
) -> None:
    """The changes show in transformers' answers or not, and ours are those."""
    source = changed(given, kind, name, changes)
    expected = theirs(given, source, kind)
    assert (expected["answers"] != plain[kind]["answers"]) == differs, "transformers' answers"
    found = ours(given, source, kind, expected["contexts"])
    assert found["answers"] == expected["answers"]
    assert found["scores"] == pytest.approx(expected["scores"], abs=1e-3)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("field", LOSS)
def test_a_loss_that_is_no_likelihood(given: Given, plain: dict[str, Any], field: str, kind: str) -> None:
    """It changes nothing of ours, and the export of a RAG-Sequence model says so."""
    source = changed(given, kind, field, {field: LOSS[field]})
    report = export_checkpoint(source, source / "said", check=False)
    assert any(field in warning for warning in report.warnings) == (kind == "sequence")
    if kind == "token":
        assert theirs(given, source, kind)["answers"] == plain[kind]["answers"]
    assert ours(given, source, kind, [])["answers"] == plain[kind]["answers"]
