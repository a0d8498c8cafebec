"""`RagEngine.prepare`: questions that share encoding and search are answered as if each had come alone."""

import threading
from typing import Any

import numpy as np
import pytest

from ragengine import Document, PreparedQuestion, RagEngine
from ragengine.errors import CancelledError, InputError
from ragengine.retrieval.manifest import VECTORS_FILE
from ragengine.runtime.cancellation import Stop
from ragengine_bench.parity.pairs import Pair
from tests.support.paths import WORLDFACTS

OPTIONS: dict[str, Any] = {"n_docs": 3, "num_beams": 2, "max_length": 10}


def test_a_prepared_question_gets_the_answer_of_its_text(pair: Pair) -> None:
    texts = ["where is Quito?", *pair.questions(7, 3)]
    prepared = pair.engine.prepare(texts, 3)
    assert [one.question for one in prepared] == texts
    for text, one in zip(texts, prepared, strict=True):
        alone, shared = pair.engine.generate(text, **OPTIONS), pair.engine.generate(one, **OPTIONS)
        assert shared.question == text
        assert shared.text == alone.text
        assert shared.hypotheses[0].token_ids.tolist() == alone.hypotheses[0].token_ids.tolist()
        assert [d.id for d in shared.documents] == [d.id for d in alone.documents]
        np.testing.assert_allclose(shared.token_posteriors, alone.token_posteriors, atol=1e-5)
        assert shared.log_prob == pytest.approx(alone.log_prob, abs=1e-5)
        assert list(shared.timings_ms) == list(alone.timings_ms)
        answer = alone.text or "no"
        assert pair.engine.score(one, answer, n_docs=3) == pytest.approx(
            pair.engine.score(text, answer, n_docs=3), abs=1e-5
        )
        assert pair.engine.classify(one, ["a", "b"], n_docs=3) == pytest.approx(
            pair.engine.classify(text, ["a", "b"], n_docs=3), abs=1e-5
        )
        assert [d.id for d in pair.engine.retrieve(one, 3)] == [d.id for d in pair.engine.retrieve(text, 3)]
        greedy = {"n_docs": 3, "num_beams": 1, "max_length": 8}
        streamed = pair.engine.stream(one, **greedy)
        assert "".join(t.text for t in streamed) == pair.engine.generate(text, **greedy).text
    together = pair.engine.generate(prepared, **OPTIONS)
    assert [answer.text for answer in together] == [pair.engine.generate(t, **OPTIONS).text for t in texts]


def test_each_question_has_its_own_number_of_documents(pair: Pair) -> None:
    prepared = pair.engine.prepare(["where is Quito?", "who?", "what?"], [2, 0, 3])
    assert [len(one.documents) for one in prepared] == [2, 0, 3]
    assert [d.id for d in prepared[0].documents] == [
        d.id for d in pair.engine.retrieve("where is Quito?", n_docs=2)
    ]
    assert pair.engine.prepare([]) == []


def test_documents_of_ones_own_take_the_place_of_those_found(pair: Pair) -> None:
    (prepared,) = pair.engine.prepare(["where is Quito?"], 0)
    own = [Document("a", "b c", score=1.0), Document("d", "e f", score=0.5)]
    answer = pair.engine.generate(prepared, documents=own, max_length=8)
    assert [d.title for d in answer.documents] == ["a", "d"]
    assert answer.text == pair.engine.generate("where is Quito?", documents=own, max_length=8).text
    with pytest.raises(InputError, match="prepared with 0 documents and is asked with n_docs=3"):
        pair.engine.generate(prepared, n_docs=3)


def test_what_cannot_be_prepared_is_refused(pair: Pair) -> None:
    (prepared,) = pair.engine.prepare(["where?"], 2)
    assert isinstance(prepared, PreparedQuestion)
    with pytest.raises(InputError, match="1 of 2 questions are prepared"):
        pair.engine.generate([prepared, "where?"], n_docs=2)
    with pytest.raises(InputError, match="Question 1 is int"):
        pair.engine.prepare(["a", 3])
    for wrong in (-1, [1, True], [2], "two"):
        with pytest.raises(InputError, match="n_docs"):
            pair.engine.prepare(["a", "b"], wrong)


def test_preparing_can_be_cancelled(pair: Pair) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CancelledError):
        pair.engine.prepare(["where?"], deadline=Stop(None, cancel))


def test_passages_have_the_vectors_that_the_index_stores() -> None:
    with RagEngine.load(WORLDFACTS / "bundle", WORLDFACTS / "index", device="cpu", threads=1) as engine:
        passages = engine.retriever.index.passages(range(3))
        vectors = engine.encode_passages([Document(p.title, p.text) for p in passages])
        stored = np.load(WORLDFACTS / "index" / VECTORS_FILE, mmap_mode="r", allow_pickle=False)[:3]
        np.testing.assert_allclose(vectors, stored.astype(np.float32), atol=2e-3)  # stored as float16
        with pytest.raises(InputError, match="empty"):
            engine.encode_passages([])


def test_without_a_passage_encoder_there_are_no_vectors_of_passages(pair: Pair) -> None:
    with pytest.raises(InputError, match="no passage encoder"):
        pair.engine.encode_passages([Document("a", "b")])
