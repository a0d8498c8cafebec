"""Texts to vectors: prompts, batches by length, cosine, and graphs that return something else."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ragengine.bundle.bundle import Bundle
from ragengine.errors import CancelledError, GraphOutputError
from ragengine.retrieval.encoder import TextEncoder, comparable
from ragengine.runtime.cancellation import Stop
from tests.support.bundles import WORDS, Array, E, add_passage_encoder, rewrite_manifest, write_bundle

WEIGHTS = np.random.default_rng(0).integers(-4, 5, (len(WORDS), E)).astype(np.float32)
PASSAGES = [("a", "b c d"), ("", "e"), ("f g", "h"), ("", "i j k l m n o"), ("p", "")]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = write_bundle(tmp_path_factory.mktemp("encoder"), E)
    add_passage_encoder(folder, WEIGHTS)
    return Bundle.open(folder)


def load(opened: Bundle, **changes: Any) -> TextEncoder:
    spec = opened.manifest.passage_encoder
    assert spec is not None
    return TextEncoder.load(opened, replace(spec, **changes), device="cpu", threads=1)


@pytest.fixture
def encoder(opened: Bundle) -> TextEncoder:
    return load(opened)


def vector(*tokens: str) -> Array:
    """The sum of the tokens' rows, with those before and after each text."""
    vectors: Array = WEIGHTS[[WORDS.index(token) for token in tokens]].sum(axis=0)
    return vectors


def of_pair(title: str, text: str) -> Array:
    return vector("[CLS]", *title.split(), "[SEP]", *text.split(), "[SEP]")


# --- what is read -------------------------------------------------------------------------------------


def test_passages_are_pairs_or_joined_after_the_prompt(opened: Bundle, encoder: TextEncoder) -> None:
    np.testing.assert_array_equal(encoder.encode_passages(PASSAGES), [of_pair(*pair) for pair in PASSAGES])
    joined = load(opened, passages="joined", prompt="x y ").encode_passages(PASSAGES)
    expected = [vector("[CLS]", *f"x y {title} {text}".split(), "[SEP]") for title, text in PASSAGES]
    np.testing.assert_array_equal(joined, expected)


def test_a_text_without_a_title_begins_with_no_space(opened: Bundle) -> None:
    joined = load(opened, passages="joined", prompt="x")
    (bare,) = joined.tokenize_passages([("", "a")])  # one word, which is not known
    (titled,) = joined.tokenize_passages([("a", "b")])
    assert bare.ids == [WORDS.index(token) for token in ("[CLS]", "[UNK]", "[SEP]")]
    assert titled.ids == [WORDS.index(token) for token in ("[CLS]", "[UNK]", "b", "[SEP]")]


def test_questions_are_read_after_the_prompt_and_told_without_it(
    opened: Bundle, encoder: TextEncoder
) -> None:
    longest = encoder.tokenizer.max_length
    questions = ["a b", "c " * (longest - 3)]
    alone = encoder.tokenize_questions(questions)
    prompted = load(opened, prompt="x y ")
    tokens = prompted.tokenize_questions(questions)
    assert [one.own_ids for one in tokens] == [one.own_ids for one in alone] == [one.ids for one in alone]
    assert tokens[0].ids == [WORDS.index(token) for token in ("[CLS]", "x", "y", "a", "b", "[SEP]")]
    assert [one.truncated for one in alone] == [False, False]
    assert [one.truncated for one in tokens] == [False, True]
    assert [len(one.ids) for one in tokens] == [6, longest]
    assert [prompted.question_text(one) for one in tokens] == [encoder.question_text(one) for one in alone]
    assert "x" not in prompted.question_text(tokens[0])


@pytest.mark.parametrize("way", ["passages", "joined", "questions", "prompted", "by_length"])
def test_a_stop_is_asked_while_texts_are_tokenized(opened: Bundle, way: str) -> None:
    cancelled = threading.Event()
    cancelled.set()
    stop = Stop(cancel=cancelled)
    encoder = load(
        opened, prompt="x " if way == "prompted" else "", passages="joined" if way == "joined" else "pair"
    )
    calls: dict[str, Callable[[], object]] = {
        "passages": lambda: encoder.tokenize_passages(PASSAGES, stop),
        "joined": lambda: encoder.tokenize_passages(PASSAGES, stop),
        "questions": lambda: encoder.tokenize_questions(["a"], stop),
        "prompted": lambda: encoder.tokenize_questions(["a"], stop),
        "by_length": lambda: encoder.encode_by_length(PASSAGES, stop=stop),
    }
    with pytest.raises(CancelledError, match="while texts were tokenized"):
        calls[way]()


# --- batches ------------------------------------------------------------------------------------------


@pytest.fixture
def batches(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The lengths of the texts of each batch that is encoded."""
    read: list[list[int]] = []
    encode = encoder.encode_tokens

    def noted(texts: Any) -> Any:
        read.append([len(text.ids) for text in texts])
        return encode(texts)

    monkeypatch.setattr(encoder, "encode_tokens", noted)
    return read


LENGTHS = [len(f"{title} {text}".split()) + 3 for title, text in PASSAGES]  # 7, 4, 6, 10, 4


@pytest.mark.parametrize(
    ("batch_tokens", "read"),
    [
        (1, [[4], [4], [6], [7], [10]]),
        (8, [[4, 4], [6], [7], [10]]),
        (17, [[4, 4], [6, 7], [10]]),
        (18, [[4, 4, 6], [7], [10]]),
        (28, [[4, 4, 6, 7], [10]]),
        (49, [[4, 4, 6, 7], [10]]),
        (50, [[4, 4, 6, 7, 10]]),
    ],
)
def test_texts_of_similar_length_are_read_together(
    encoder: TextEncoder, batches: list[list[int]], batch_tokens: int, read: list[list[int]]
) -> None:
    told: list[int] = []
    found = encoder.encode_by_length(PASSAGES, batch_tokens, on_rows=told.append)
    assert sorted(LENGTHS) == [4, 4, 6, 7, 10]
    assert batches == read
    assert told == np.cumsum([len(batch) for batch in read])[:-1].tolist()
    np.testing.assert_array_equal(found, [of_pair(*pair) for pair in PASSAGES])


def test_nothing_has_no_vectors(encoder: TextEncoder, batches: list[list[int]]) -> None:
    assert encoder.encode_by_length([]).shape == (0, E)
    assert batches == []


def test_a_stop_is_asked_before_each_batch(encoder: TextEncoder, batches: list[list[int]]) -> None:
    cancelled = threading.Event()

    def cancel(rows: int) -> None:
        if rows == 3:
            cancelled.set()

    with pytest.raises(CancelledError, match="while the documents were scored"):
        encoder.encode_by_length(PASSAGES, 1, Stop(cancel=cancelled), cancel)
    assert len(batches) == 3


# --- vectors ------------------------------------------------------------------------------------------


def test_vectors_compared_by_their_cosine_have_the_norm_one(opened: Bundle, encoder: TextEncoder) -> None:
    spec = replace(encoder.spec, similarity="cosine")
    given = np.array([[3, 4], [1e-20, 0], [0, 0], [-2e19, 2e19]], np.float32)
    unit = comparable(given, spec)
    assert unit.dtype == np.float32
    half = np.sqrt(0.5)
    np.testing.assert_allclose(unit, [[0.6, 0.8], [1e-8, 0], [0, 0], [-half, half]], rtol=1e-6)
    assert comparable(given, encoder.spec) is given
    raw = encoder.encode_passages(PASSAGES)
    np.testing.assert_allclose(
        load(opened, similarity="cosine").encode_passages(PASSAGES),
        raw / np.linalg.norm(raw, axis=1, keepdims=True),
        rtol=1e-6,
    )


def test_a_graph_of_another_dimension_is_refused(opened: Bundle) -> None:
    with pytest.raises(GraphOutputError, match=rf"returned vectors \[1, {E}\] for 1 texts and 9 dimensions"):
        load(opened, dimension=9).encode_passages(PASSAGES[:1])


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(tmp_path: Path, number: float) -> None:
    folder = write_bundle(tmp_path / "bundle", E)
    weights = WEIGHTS.copy()
    weights[WORDS.index("h"), 3] = number
    add_passage_encoder(folder, weights)
    encoder = load(Bundle.open(folder))
    assert np.isfinite(encoder.encode_passages(PASSAGES[:2])).all()
    with pytest.raises(GraphOutputError, match="returned NaN or infinite numbers"):
        encoder.encode_passages(PASSAGES[:3])


def test_as_many_vectors_as_texts_are_wanted(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", E)
    add_passage_encoder(folder, WEIGHTS)
    path = folder / "passage_encoder" / "encoder.onnx"
    graph = onnx.load(path)
    (sum_,) = [node for node in graph.graph.node if node.op_type == "ReduceSum"]
    sum_.input[1] = "first"  # of the texts instead of their tokens
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "first"))
    onnx.save(graph, path)
    rewrite_manifest(folder)
    with pytest.raises(GraphOutputError, match=r"for 1 texts and 8 dimensions; export the bundle again"):
        load(Bundle.open(folder)).encode_passages(PASSAGES[:1])
