"""The engine as an application uses it."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine import Answer, Bundle, Document, Generator, RagEngine, Retriever
from ragengine.errors import BundleError, DeviceError, IndexFolderError, InputError, OptionsError
from ragengine_bench.parity.pairs import Pair
from tests.support.models import save_bart, save_dpr

OPTIONS: dict[str, Any] = {"num_beams": 3, "num_return_sequences": 2, "max_length": 12, "n_docs": 4}


def test_answering_imports_neither_torch_nor_transformers(pair: Pair) -> None:
    code = f"""
import sys
from ragengine import RagEngine
engine = RagEngine.load({str(pair.bundle)!r}, index={str(pair.bundle.parent / "index")!r}, device="cpu")
answer = engine.generate("what is the capital of Kyoto?", num_beams=2)
assert answer.documents
heavy = {{"torch", "transformers", "onnxscript", "onnx", "datasets", "pyarrow", "ragengine_export"}}
print(sorted(heavy & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_an_answer_is_consistent_with_itself(pair: Pair) -> None:
    answer = pair.engine.generate("what is the capital of Kyoto?", **OPTIONS)
    assert isinstance(answer, Answer)
    best = answer.hypotheses[0]
    assert len(answer.hypotheses) == len(answer.texts) == 2
    assert answer.score == best.score >= answer.hypotheses[1].score
    assert (
        best.token_posteriors.shape == (len(best.token_ids), 4) == (len(answer.tokens), len(answer.documents))
    )
    assert best.log_prob == pytest.approx(float(best.token_log_probs.sum()), abs=1e-4)
    scores = [document.score for document in answer.documents]
    assert scores == sorted(scores, key=lambda score: -(score or 0))
    assert sum(document.prior or 0 for document in answer.documents) == pytest.approx(1, abs=1e-5)
    assert sum(document.posterior or 0 for document in answer.documents) == pytest.approx(1, abs=1e-5)
    assert list(answer.timings_ms) == [
        "tokenize_question", "encode_question", "search", "tokenize_documents", "read_documents", "decode",
    ]  # fmt: skip


def test_to_dict_is_the_contracts_json(pair: Pair) -> None:
    answer = pair.engine.generate("Where is Quito?", **OPTIONS)
    content = json.loads(json.dumps(answer.to_dict()))
    contract = ["question", "answer", "score", "documents", "tokens", "flags", "timings_ms"]
    later = ["raw_answer", "citations", "confidence", "answerability", "notes", "missing_shards"]
    assert list(content) == [*contract, "log_prob", "pruned_documents", "hypotheses", *later]
    assert content["notes"] == list(answer.notes)
    assert len(answer.notes) == len(answer.flags)
    assert [h["answer"] for h in content["hypotheses"]] == list(answer.texts)
    assert content["hypotheses"][0]["score"] == content["score"]
    document = ["id", "title", "text", "doc_score", "prior", "posterior"]
    assert list(content["documents"][0]) == [*document, "metadata"]
    assert list(content["tokens"][0]) == ["id", "text", "posterior", "log_prob", "entropy"]
    assert [token["id"] for token in content["tokens"]] == answer.hypotheses[0].token_ids.tolist()


def test_a_list_in_gives_a_list_out(pair: Pair) -> None:
    assert pair.engine.generate([]) == []
    (answer,) = pair.engine.generate(["Where is Quito?"], **OPTIONS)
    assert answer.text == pair.engine.generate("Where is Quito?", **OPTIONS).text


def test_retrieve_gives_scores_and_priors(pair: Pair) -> None:
    documents = pair.engine.retrieve("Where is Quito?", n_docs=7)
    assert len(documents) == 7
    assert sum(document.prior or 0 for document in documents) == pytest.approx(1, abs=1e-5)
    read = pair.engine.generate("Where is Quito?", **{**OPTIONS, "n_docs": 7}).documents
    assert [d.id for d in read] == [d.id for d in documents]


def test_search_vectors_finds_the_stored_vector_itself(pair: Pair) -> None:
    stored = np.load(pair.checkpoint.embeddings_file)
    retriever = Retriever.load(pair.bundle, index=pair.bundle.parent / "index", device="cpu")
    for row, found in enumerate(retriever.search_vectors(3 * stored[:5], n_docs=len(stored))):
        scores = 3 * stored[row] @ stored.T
        np.testing.assert_allclose([d.score for d in found], np.sort(scores)[::-1], rtol=1e-5, atol=1e-5)


def test_own_documents_are_read_in_their_order(pair: Pair) -> None:
    own = [Document("Kyoto", "a city", score=0.5), Document("Quito", "a capital", score=2.0)]
    answer = pair.engine.generate("Where?", documents=own, **OPTIONS)
    assert [document.title for document in answer.documents] == ["Kyoto", "Quito"]
    prior = np.exp([0.5, 2.0]) / np.exp([0.5, 2.0]).sum()
    assert [d.prior for d in answer.documents] == pytest.approx(prior.tolist(), abs=1e-6)
    assert "fewer_documents" in answer.flags  # n_docs was 4


def test_questions_with_different_numbers_of_documents_do_not_touch_each_other(pair: Pair) -> None:
    own = [Document("Kyoto", "a city of temples", score=1.0), Document("Quito", "a capital", score=0.5)]
    together = pair.engine.generate(["Where?", "What?"], documents=[own, own[:1]], **OPTIONS)
    alone = [
        pair.engine.generate("Where?", documents=own, **OPTIONS),
        pair.engine.generate("What?", documents=own[:1], **OPTIONS),
    ]
    for ours, reference in zip(together, alone, strict=True):
        assert ours.text == reference.text
        assert ours.score == pytest.approx(reference.score, abs=1e-5)
        np.testing.assert_allclose(ours.token_posteriors, reference.token_posteriors, atol=1e-5)


def test_own_documents_without_scores_use_the_passage_encoder(pair: Pair, tmp_path: Path) -> None:
    own = [Document("Kyoto", "a city"), Document("Quito", "a capital")]
    with pytest.raises(InputError, match="no passage encoder; give each a score"):
        pair.engine.generate("Where?", documents=own)
    question, context = save_dpr(tmp_path / "q"), save_dpr(tmp_path / "c", context=True, seed=1)
    from ragengine.indexing.build import build_index
    from ragengine_export import export_checkpoint

    export_checkpoint(
        None,
        tmp_path / "bundle",
        question_encoder=question,
        generator=save_bart(tmp_path / "bart"),
        context_encoder=context,
        check=False,
    )
    build_index(pair.checkpoint.passages_file, tmp_path / "index", bundle=tmp_path / "bundle")
    engine = RagEngine.load(tmp_path / "bundle", index=tmp_path / "index", device="cpu", threads=1)
    found = engine.retrieve("Where is Quito?", n_docs=3)
    bare = [Document(document.title, document.text) for document in found]
    answer = engine.generate("Where is Quito?", documents=bare, **OPTIONS)
    # the index stores float16, so its scores are a little coarser
    assert [d.score for d in answer.documents] == pytest.approx([d.score for d in found], abs=0.02)
    encoder = engine._scorer._encoder
    assert encoder is not None
    assert encoder._session.get_session_options().intra_op_num_threads == 1


@pytest.mark.parametrize("documents", [[], [[]], "text", [Document("t", "x", score=1.0), Document("t", "x")]])
def test_unusable_documents_are_one_clear_error(pair: Pair, documents: Any) -> None:
    with pytest.raises(InputError):
        pair.engine.generate("Where?", documents=documents)


@pytest.mark.parametrize("question", [None, 3, b"bytes", ["fine", None], "\ud800", [None]])
def test_unusable_questions_are_one_clear_error(pair: Pair, question: Any) -> None:
    with pytest.raises(InputError):
        pair.engine.generate(question)


@pytest.mark.parametrize(
    "question", ["", "   ", "\x00", "🙂" * 300, "word " * 3000, "مرحبا بالعالم", "a\u200bb\u0301"]
)
def test_odd_questions_are_answered(pair: Pair, question: str) -> None:
    answer = pair.engine.generate(question, **OPTIONS)
    assert len(answer.documents) == 4
    assert ("question_truncated" in answer.flags) or len(question) < 2000


def test_fewer_passages_than_asked_for(pair: Pair) -> None:
    count = len(pair.checkpoint.passages)
    answer = pair.engine.generate("Where is Quito?", **{**OPTIONS, "n_docs": 100})
    assert len(answer.documents) == count < 100
    assert "fewer_documents" in answer.flags
    assert answer.token_posteriors.shape[1] == count


def test_wrong_options_say_what_the_model_allows(pair: Pair) -> None:
    with pytest.raises(OptionsError, match="did you mean 'num_beams'"):
        pair.engine.generate("Where?", num_beam=2)
    positions = pair.engine.bundle.manifest.generator.max_positions
    with pytest.raises(
        OptionsError, match=f"max_length is {positions + 1}, the model has {positions} positions"
    ):
        pair.engine.generate("Where?", max_length=positions + 1)
    with pytest.raises(OptionsError, match="eos_token_id is 99999, the vocabulary has"):
        pair.engine.generate("Where?", eos_token_id=99999)
    with pytest.raises(OptionsError, match="marginalize is 'document'"):
        pair.engine.generate("Where?", marginalize="document")


def test_many_threads_get_the_answers_of_one(pair: Pair) -> None:
    asked = pair.questions(5, 12)
    expected = [pair.engine.generate(question, **OPTIONS) for question in asked]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(3):
            answers = list(pool.map(lambda question: pair.engine.generate(question, **OPTIONS), asked))
            for answer, reference in zip(answers, expected, strict=True):
                assert answer.texts == reference.texts
                assert answer.score == pytest.approx(reference.score, abs=1e-6)


def test_an_index_of_another_encoder_is_refused_with_both_names(pair: Pair, tmp_path: Path) -> None:
    from ragengine_export import export_checkpoint

    other = tmp_path / "bundle"
    export_checkpoint(
        None,
        other,
        question_encoder=save_dpr(tmp_path / "other-dpr"),
        generator=save_bart(tmp_path / "b"),
        check=False,
    )
    with pytest.raises(IndexFolderError, match=r"built with the encoder source .* has other-dpr"):
        RagEngine.load(other, index=pair.bundle.parent / "index", device="cpu")


def test_damaged_bundles_are_refused_before_they_are_used(pair: Pair, tmp_path: Path) -> None:
    for file in pair.bundle.rglob("*"):
        if file.is_file():
            (tmp_path / file.relative_to(pair.bundle)).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file.relative_to(pair.bundle)).write_bytes(file.read_bytes())
    weights = tmp_path / "generator" / "weights.bin"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match=r"generator/weights\.bin has another sha256"):
        Generator.load(tmp_path, device="cpu")
    Bundle.open(tmp_path, verify="size")
    weights.unlink()
    with pytest.raises(BundleError, match=r"generator/weights\.bin is missing"):
        Bundle.open(tmp_path, verify="size")


def test_cuda_never_falls_back_silently(pair: Pair) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        assert Generator.load(pair.bundle, device="cuda").device == "cuda"
        return
    with pytest.raises(DeviceError, match="no CUDAExecutionProvider"):
        Generator.load(pair.bundle, device="cuda")
    assert Generator.load(pair.bundle, device="auto").device == "cpu"
