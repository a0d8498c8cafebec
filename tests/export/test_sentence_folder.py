"""Folders of sentence-transformers export to the vectors of the library, or are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine import Bundle, RagEngine
from ragengine.arrays import FloatArray
from ragengine.errors import ExportError, IndexFolderError
from ragengine.indexing.build import build_index
from ragengine.retrieval.encoder import TextEncoder
from ragengine.runtime.sessions import create_session
from ragengine_export import export_checkpoint
from ragengine_export.verification import TOLERANCE
from tests.export.sentence_vectors import RECORDED
from tests.support.models import save_bart, save_dpr
from tests.support.sentence_folders import (
    MODELS,
    PASSAGES,
    QUESTIONS,
    SentenceModel,
    write_sentence_folder,
)

LIBRARY: dict[str, dict[str, Any]] = json.loads(RECORDED.read_text("utf-8"))["models"]


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bart(tmp_path_factory.mktemp("bart"))


def exported_vectors(folder: Path, bundle: Path, bart: Path) -> tuple[FloatArray, FloatArray]:
    """What the graphs give for questions and passages, before they are made comparable."""
    report = export_checkpoint(None, bundle, question_encoder=folder, generator=bart)
    assert all(check.difference < TOLERANCE["fp32"] for check in report.checks)
    manifest = Bundle.open(bundle).manifest
    assert manifest.passage_encoder is not None  # the model encodes passages too
    vectors = []
    for spec, tokens in (
        (manifest.question_encoder, lambda encoder: encoder.tokenize_questions(QUESTIONS)),
        (manifest.passage_encoder, lambda encoder: encoder.tokenize_passages(PASSAGES)),
    ):
        encoder = TextEncoder.load(Bundle.open(bundle), spec, device="cpu", threads=1)
        ids, mask = encoder.tokenizer.pad([one.ids for one in tokens(encoder)])
        session = create_session(bundle / spec.path / spec.graph, device="cpu", threads=1)
        vectors.append(session.run(None, {"input_ids": ids, "attention_mask": mask})[0])
    return vectors[0], vectors[1]


@pytest.mark.parametrize("name", MODELS)
def test_vectors_are_those_of_the_library(name: str, bart: Path, tmp_path: Path) -> None:
    """As recorded: ``tests/export/sentence_vectors/make.py`` ran the library on the same folders."""
    folder = write_sentence_folder(tmp_path / "model", MODELS[name])
    questions, passages = exported_vectors(folder, tmp_path / "bundle", bart)
    recorded = LIBRARY[name]
    np.testing.assert_allclose(questions, recorded["questions"], atol=1e-5)
    np.testing.assert_allclose(passages, recorded["passages"], atol=1e-5)
    similarity = Bundle.open(tmp_path / "bundle").manifest.question_encoder.similarity
    assert similarity == {"cosine": "cosine", "dot": "inner_product"}[recorded["similarity"]]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_vectors_are_those_of_the_installed_library(name: str, bart: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    from tests.export.sentence_vectors.make import library_vectors

    folder = write_sentence_folder(tmp_path / "model", MODELS[name])
    theirs = library_vectors(folder)
    questions, passages = exported_vectors(folder, tmp_path / "bundle", bart)
    np.testing.assert_allclose(questions, theirs["questions"], atol=1e-5)
    np.testing.assert_allclose(passages, theirs["passages"], atol=1e-5)


@pytest.fixture(scope="module")
def e5(tmp_path_factory: pytest.TempPathFactory, bart: Path) -> Path:
    """A bundle of a model with prompts, whose vectors have other norms than 1 and are compared by cosine."""
    folder = tmp_path_factory.mktemp("e5")
    settings = {"prompts": {"query": "query: ", "passage": "passage: "}, "similarity_fn_name": "cosine"}
    source = write_sentence_folder(folder / "model", SentenceModel("xlm-roberta", settings=settings))
    export_checkpoint(None, folder / "bundle", question_encoder=source, generator=bart)
    lines = [json.dumps({"id": str(n), "title": t, "text": x}) + "\n" for n, (t, x) in enumerate(PASSAGES)]
    (folder / "passages.jsonl").write_text("".join(lines))
    return folder


def test_a_cosine_index_ranks_by_the_librarys_cosine(e5: Path, tmp_path: Path, bart: Path) -> None:
    """From a build with the passage encoder and from given vectors of any norm alike."""
    questions, passages = exported_vectors(e5 / "model", tmp_path / "again", bart)
    assert np.ptp(np.linalg.norm(passages, axis=1)) > 0.01
    np.save(tmp_path / "vectors.npy", passages * np.float32([[0.5], [3], [20]]))
    units = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (questions, passages)]
    cosines = units[0] @ units[1].T
    for embeddings in (None, tmp_path / "vectors.npy"):
        build_index(
            e5 / "passages.jsonl",
            tmp_path / "index",
            bundle=e5 / "bundle",
            embeddings=embeddings,
            force=True,
        )
        with RagEngine.load(e5 / "bundle", index=tmp_path / "index", device="cpu", threads=1) as engine:
            for question, cosine in zip(QUESTIONS, cosines, strict=True):
                documents = engine.generate(question, n_docs=3, max_length=4).documents
                scores = [float(document.score or 0) for document in documents]
                assert [int(document.id) for document in documents] == np.argsort(-cosine).tolist()
                np.testing.assert_allclose(scores, np.sort(cosine)[::-1], atol=1e-3)  # stored as float16


def test_the_generator_reads_questions_without_their_prompt(e5: Path, tmp_path: Path) -> None:
    build_index(e5 / "passages.jsonl", tmp_path / "index", bundle=e5 / "bundle")
    with RagEngine.load(e5 / "bundle", index=tmp_path / "index", device="cpu", threads=1) as engine:
        (tokens,) = engine.retriever.tokenize(["who wrote the book"])
        assert engine.retriever.question_text(tokens) == "who wrote the book"
        read = engine.retriever._encoder.tokenizer.decode(tokens.ids)
        assert read == "query: who wrote the book"


def test_an_index_belongs_to_one_similarity_and_one_prompt(e5: Path, tmp_path: Path, bart: Path) -> None:
    """Each is in the fingerprint; the precision is not."""
    changes: list[dict[str, Any]] = [{"similarity_fn_name": "dot"}, {"prompts": {"passage": "text: "}}, {}]
    fingerprints = set()
    for number, change in enumerate(changes):
        source = shutil.copytree(e5 / "model", tmp_path / str(number))
        config = source / "config_sentence_transformers.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
        export_checkpoint(
            None,
            tmp_path / "bundle",
            "int8",
            question_encoder=source,
            generator=bart,
            check=False,
            force=True,
        )
        fingerprints.add(Bundle.open(tmp_path / "bundle").index_encoder.fingerprint)
    assert len(fingerprints) == 3
    assert Bundle.open(e5 / "bundle").index_encoder.fingerprint in fingerprints

    build_index(e5 / "passages.jsonl", tmp_path / "index", bundle=e5 / "bundle")
    export_checkpoint(None, tmp_path / "dot", question_encoder=tmp_path / "0", generator=bart, check=False)
    with pytest.raises(IndexFolderError, match="was built with the encoder"):
        RagEngine.load(tmp_path / "dot", index=tmp_path / "index")


def test_a_silent_folder_is_compared_by_cosine_and_the_report_says_so(bart: Path, tmp_path: Path) -> None:
    source = write_sentence_folder(tmp_path / "model", MODELS["distilbert"])
    report = export_checkpoint(
        None, tmp_path / "bundle", question_encoder=source, generator=bart, check=False
    )
    (note,) = report.notes
    assert 'by cosine, as sentence-transformers takes it; for inner products set "similarity_fn_name"' in note


def change(file: str, **values: Any) -> Callable[[Path], None]:
    """Set fields of a JSON file of the folder."""

    def edit(folder: Path) -> None:
        path = folder / file
        path.parent.mkdir(exist_ok=True)
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(content | values))

    return edit


def modules(*kinds: str) -> Callable[[Path], None]:
    """Replace the list of modules."""

    def edit(folder: Path) -> None:
        paths = ["" if kind.endswith("Transformer") else f"{n}_Module" for n, kind in enumerate(kinds)]
        listed = [{"type": kind, "path": path} for kind, path in zip(kinds, paths, strict=True)]
        (folder / "modules.json").write_text(json.dumps(listed))

    return edit


OWN = "sentence_transformers.models."
DENSE = "the Dense layer 2_Dense is"
REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "code": (modules(f"{OWN}Transformer", "custom.Pooling"), r"brings code of its own .*'custom.Pooling'"),
    "router": (modules(f"{OWN}Router"), "is made of Router"),
    "bag of words": (modules(f"{OWN}Transformer", f"{OWN}BoW"), "is made of Transformer, BoW"),
    "no pooling": (modules(f"{OWN}Transformer"), "is made of Transformer "),
    "elsewhere": (
        lambda folder: (folder / "modules.json").write_text(
            json.dumps([{"type": f"{OWN}Transformer", "path": "../other"}])
        ),
        "names the folder '../other'",
    ),
    "not a list": (lambda folder: (folder / "modules.json").write_text("{}"), "is not a JSON list"),
    "damaged": (lambda folder: (folder / "modules.json").write_text("["), "cannot be read as JSON"),
    "unknown pooling": (change("1_Pooling/config.json", pooling_mode="attention"), "pools by .'attention'"),
    "euclidean": (
        change("config_sentence_transformers.json", similarity_fn_name="euclidean"),
        "compares vectors by 'euclidean'; supported are cosine and dot",
    ),
    "shortened": (change("config_sentence_transformers.json", truncate_dim=4), "sets truncate_dim to 4"),
    "cross-encoder": (
        change("config_sentence_transformers.json", model_type="CrossEncoder"), "is a 'CrossEncoder'",
    ),
    "prompts": (change("config_sentence_transformers.json", prompts={"query": 7}), "that are not texts"),
    "residual": (change("2_Dense/config.json", use_residual=True), DENSE),
    "activation": (change("2_Dense/config.json", activation_function="own.Act"), DENSE),
    "no weights": (lambda folder: (folder / "2_Dense/model.safetensors").unlink(), "has no weights for its"),
    "query length": (change("sentence_bert_config.json", query_length=32), "sets query_length to 32"),
    "length": (change("sentence_bert_config.json", max_seq_length=-1), "has the max_seq_length -1"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_what_would_give_other_vectors_is_refused(fault: str, bart: Path, tmp_path: Path) -> None:
    edit, message = REFUSED[fault]
    folder = write_sentence_folder(tmp_path / "model", MODELS["bert, cls and dense"])
    edit(folder)
    with pytest.raises(ExportError, match=message):
        export_checkpoint(None, tmp_path / "bundle", question_encoder=folder, generator=bart)
    assert not (tmp_path / "bundle").exists()


def test_encoders_of_different_similarities_do_not_belong_together(bart: Path, tmp_path: Path) -> None:
    source = write_sentence_folder(tmp_path / "model", MODELS["bert, mean"])
    dpr = save_dpr(tmp_path / "dpr", context=True, hidden_size=12)
    with pytest.raises(ExportError, match=r"compared by cosine, those of .*dpr by inner_product"):
        export_checkpoint(
            None, tmp_path / "bundle", question_encoder=source, context_encoder=dpr, generator=bart
        )


def test_pooling_is_not_given_to_a_folder_that_says_it(bart: Path, tmp_path: Path) -> None:
    source = write_sentence_folder(tmp_path / "model", MODELS["bert, mean"])
    with pytest.raises(ExportError, match="say how they pool; leave out --pooling"):
        export_checkpoint(None, tmp_path / "bundle", question_encoder=source, generator=bart, pooling="mean")
