"""Tokenizer folders in every form that transformers reads: the same tokens and answers, from question text.

The passages spell out special tokens, and are longer than what the generator reads.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from datasets import Dataset
from transformers import RagSequenceForGeneration, RagTokenForGeneration, RagTokenizer
from transformers.models.rag.retrieval_rag import CustomHFIndex

from ragengine import RagEngine
from ragengine.bundle.bundle import Bundle
from ragengine.errors import ExportError
from ragengine.indexing.build import build_index
from ragengine.tokenization import Tokenizer
from ragengine_bench.checkpoints.corpus import random_questions
from ragengine_bench.checkpoints.rag_checkpoint import Checkpoint, random_spec, write_checkpoint
from ragengine_bench.parity.margins import RecordingBart
from ragengine_bench.parity.reference import RecordingRetriever, cut_padding
from ragengine_export import export_checkpoint

CLASSES = {"token": RagTokenForGeneration, "sequence": RagSequenceForGeneration}
SEARCH = {"num_beams": 3, "num_return_sequences": 2, "max_length": 7}
SPELLED = ["</s>", "<s>", "[PAD]", "[SEP]", "<mask>", "<unk>", "<pad>"]
LONGEST = 24
QUESTION, GENERATOR = "question_encoder_tokenizer", "generator_tokenizer"


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def settings(part: str, **values: Any) -> Callable[[Path, Path], None]:
    """Set fields of a part's tokenizer_config.json."""
    return lambda source, _: edit(source / part / "tokenizer_config.json", **values)


def vocabularies_alone(source: Path, trained: Path) -> None:
    """As the hub's older RAG folders: no tokenizer.json, no class, and no config but a few settings."""
    for part, origin in ((QUESTION, "question"), (GENERATOR, "generator")):
        shutil.rmtree(source / part)
        (source / part).mkdir()
        for name in ("vocab.txt", "vocab.json", "merges.txt"):
            if (trained / origin / name).exists():
                shutil.copy(trained / origin / name, source / part / name)
    (source / QUESTION / "tokenizer_config.json").write_text('{"do_lower_case": true}')


def backends_alone(source: Path, trained: Path) -> None:
    for part in (QUESTION, GENERATOR):
        (source / part / "tokenizer_config.json").unlink()


def cut_in_json(source: Path, trained: Path) -> None:
    """Truncation and padding of whoever saved `tokenizer.json`: transformers takes its sides, not lengths."""
    for part in (QUESTION, GENERATOR):
        path = str(source / part / "tokenizer.json")
        backend = tokenizers.Tokenizer.from_file(path)
        backend.enable_truncation(5, direction="left")
        backend.enable_padding(length=9, pad_id=1, pad_token=backend.id_to_token(1))
        backend.save(path)


FORMS: dict[str, Callable[[Path, Path], None]] = {
    "as saved": lambda source, _: None,
    "vocabularies alone": vocabularies_alone,
    "tokenizer.json alone": backends_alone,
    "generator cut on the left": settings(GENERATOR, truncation_side="left"),
    "question cut on the left": settings(QUESTION, truncation_side="left", model_max_length=7),
    "question padded on the left": settings(QUESTION, padding_side="left"),
    "special tokens split": settings(GENERATOR, split_special_tokens=True),
    "short model_max_length": settings(GENERATOR, model_max_length=11),
    "truncation in tokenizer.json": cut_in_json,
}
SAME = {"vocabularies alone", "tokenizer.json alone", "question padded on the left", "short model_max_length"}
"""The forms that change no token."""


@dataclass(frozen=True)
class Given:
    checkpoint: Checkpoint
    dataset: Dataset
    index: Path
    questions: list[str]
    folder: Path

    def form(self, name: str, kind: str = "token") -> Path:
        source = self.folder / f"{kind}-{name}"
        if not source.exists():
            shutil.copytree(self.checkpoint.source, source)
            edit(source / "config.json", architectures=[CLASSES[kind].__name__])
            FORMS[name](source, self.folder / "trained")
        return source


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("forms")
    spec = random_spec(
        23, n_docs=3, forced_bos=False, forced_eos=False, max_combined_length=LONGEST, positions=64,
        longest_passage=20, clean_up_tokenization_spaces=None, generator_prefix=None,
    )  # fmt: skip
    checkpoint = write_checkpoint(spec, folder)
    rows = [json.loads(line) for line in checkpoint.passages_file.read_text().splitlines()]
    for number, row in enumerate(rows):
        words = row["text"].split()
        for place in (1, 4):
            words.insert(place, SPELLED[(number + place) % len(SPELLED)])
        row["text"] = " ".join(words)
    (folder / "spelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {name: [row[name] for row in rows] for name in ("title", "text")}
    dataset = Dataset.from_dict({**columns, "embeddings": np.load(checkpoint.embeddings_file)})
    dataset.load_faiss_index("embeddings", str(checkpoint.faiss_index))
    export_checkpoint(checkpoint.source, folder / "bundle", check=False)
    build_index(
        folder / "spelled.jsonl",
        folder / "index",
        bundle=folder / "bundle",
        embeddings=checkpoint.embeddings_file,
    )
    questions = [f"{text} [SEP] again" for text in random_questions(np.random.default_rng(4), 5)]
    return Given(checkpoint, dataset, folder / "index", questions, folder)


@torch.no_grad()
def theirs(given: Given, source: Path, kind: str) -> tuple[list[Any], list[Any], list[Any]]:
    """transformers' question tokens, contexts and answers."""
    model = CLASSES[kind].from_pretrained(source, dtype=torch.float32).eval()
    if kind == "sequence":  # its searches by document attend to padding in transformers 5
        model.rag.generator.__class__ = RecordingBart
        model.rag.generator.calls = []
    tokenizer = RagTokenizer.from_pretrained(str(source))
    retriever = RecordingRetriever(
        model.config,
        question_encoder_tokenizer=tokenizer.question_encoder,
        generator_tokenizer=tokenizer.generator,
        index=CustomHFIndex(model.config.retrieval_vector_size, given.dataset),
    )
    model.set_retriever(retriever)
    questions, contexts, answers = [], [], []
    for question in given.questions:
        encoded = tokenizer([question], return_tensors="pt", truncation=True)
        inputs = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
        questions.append(inputs["input_ids"][0].tolist())
        answers.append([cut(row[1:]) for row in model.generate(**inputs, **SEARCH).tolist()])
        found = retriever.last
        read = cut_padding(found["context_input_ids"], found["context_attention_mask"])
        contexts.append(read[: model.config.n_docs])  # RAG-Sequence repeats them for each candidate
    return questions, contexts, answers


def ours(given: Given, source: Path) -> tuple[list[Any], list[Any], list[Any]]:
    export_checkpoint(source, source / "bundle", check=False)
    bundle = Bundle.open(source / "bundle")
    spec = bundle.manifest.generator
    reader = Tokenizer(bundle.file(spec.path, "tokenizer.json"), spec.tokenizer)
    questions, contexts, answers = [], [], []
    with RagEngine.load(bundle.path, index=given.index, device="cpu", threads=1) as engine:
        for question in given.questions:
            (tokens,) = engine.retriever.tokenize([question])
            answer = engine.generate(question, **SEARCH)
            rag, text = bundle.manifest.rag, engine.retriever.question_text(tokens)
            prompts = [
                (d.title.removeprefix('"').removesuffix('"') + rag.title_sep + d.text + rag.doc_sep + text)
                for d in answer.documents
            ]
            questions.append(tokens.ids)
            contexts.append([one.ids for one in reader.encode([p.replace("  ", " ") for p in prompts])])
            answers.append([list(map(int, hypothesis.token_ids)) for hypothesis in answer.hypotheses])
    return questions, contexts, answers


def cut(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(2) + 1] if 2 in tokens else tokens


@pytest.fixture(scope="module")
def plain(given: Given) -> tuple[list[Any], list[Any], list[Any]]:
    return theirs(given, given.form("as saved"), "token")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_tokens_and_answers_of_transformers(
    given: Given, plain: tuple[list[Any], list[Any], list[Any]], form: str
) -> None:
    expected = theirs(given, given.form(form), "token")
    assert (expected == plain) == (form in SAME or form == "as saved"), "transformers' own tokens"
    assert max(len(context) for contexts in expected[1] for context in contexts) == LONGEST
    found = ours(given, given.form(form))
    for what, one, other in zip(("questions", "contexts", "answers"), found, expected, strict=True):
        assert one == other, what


def test_special_tokens_in_passages_are_read_by_rag_sequence_too(given: Given) -> None:
    assert ours(given, given.form("as saved", "sequence")) == theirs(
        given, given.form("as saved", "sequence"), "sequence"
    )


@pytest.mark.parametrize("part", [QUESTION, GENERATOR])
def test_a_missing_tokenizer_is_named(given: Given, tmp_path: Path, part: str) -> None:
    source = tmp_path / "source"
    shutil.copytree(given.checkpoint.source, source)
    shutil.rmtree(source / part)
    files = "vocab.txt" if part == QUESTION else "vocab.json and merges.txt"
    with pytest.raises(ExportError, match=rf"{part} has no tokenizer: tokenizer\.json is missing.*{files}"):
        export_checkpoint(source, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_generator_padded_on_the_left_is_refused(given: Given, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(given.checkpoint.source, source)
    edit(source / GENERATOR / "tokenizer_config.json", padding_side="left")
    with pytest.raises(ExportError, match="has padding_side left, which moves every document"):
        export_checkpoint(source, tmp_path / "bundle")
