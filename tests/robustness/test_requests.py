"""Any request gets the documented result or one clear sentence (the page on requests)."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragengine import Answer, Document
from ragengine.errors import InputError, MemoryLimitError, OptionsError, RagEngineError
from ragengine_bench.parity.pairs import Pair
from tests.support.commands import COMMAND
from tests.support.ids import stable_repr

ODD = {
    "empty": "",
    "blank": " \t\n\r ",
    "one character": "?",
    "NUL": "who\0 is\0",
    "right to left": "\u202eמה בירת איסלנד؟ ما هي عاصمة",
    "emoji": "👩‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿 🇮🇸 ?",
    "combining": "e\u0301" * 50 + "Z\u0335\u0336\u0337" * 40,
    "control": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "byte order marks": "\ufeff\ufffe\u2028\u2029",
    "special tokens": "[CLS] [SEP] [PAD] <s> </s> <pad> <mask>",
    "100,000 characters": "word " * 20_000,
    "100,000 characters without a space": "x" * 100_000,
    "quotes and braces": "\"'{}[]\\u0000 %s {0}",
}
NOT_QUESTIONS: list[Any] = [None, 1, 1.5, True, b"bytes", {"a": 1}, {"a"}, object(), [None], ["a", 1], [b"a"]]
HALF_PAIRS = ["\ud800", "a\udfffb", "\udc00\ud800"]


def outcome(call: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
    """The result of a call, or our own error; any other exception propagates."""
    try:
        return call(*arguments, **settings)
    except RagEngineError as error:
        return error


def assert_sound(answer: Answer) -> None:
    """Check for finite numbers, distributions that sum to one, and valid JSON."""
    assert math.isfinite(answer.score)
    assert answer.log_prob <= 1e-3
    assert np.isfinite(answer.token_log_probs).all()
    np.testing.assert_allclose(answer.token_posteriors.sum(axis=1), 1, atol=1e-4)
    np.testing.assert_allclose(sum(d.prior or 0.0 for d in answer.documents), 1, atol=1e-4)
    text = json.dumps(answer.to_dict(), allow_nan=False, ensure_ascii=False)
    assert json.loads(text.encode("utf-8")) == json.loads(text)


@pytest.mark.parametrize("name", ODD)
def test_odd_questions_are_answered(pair: Pair, name: str) -> None:
    answer = pair.engine.generate(ODD[name])
    assert answer.question == ODD[name]
    assert_sound(answer)
    words = len(ODD[name].split())
    assert ("question_truncated" in answer.flags) >= (words > 10_000)  # a long word is one unknown token
    assert len(pair.engine.retrieve(ODD[name], 2)) == 2


@given(st.text(max_size=60))
@settings(max_examples=40)
@example("\x00")
def test_any_text_is_answered(pair: Pair, text: str) -> None:
    """Any Unicode text; Hypothesis makes no lone surrogates."""
    assert_sound(pair.engine.generate(text))


@pytest.mark.parametrize("text", HALF_PAIRS, ids=ascii)
def test_half_a_surrogate_pair_is_no_text(pair: Pair, text: str) -> None:
    engine = pair.engine
    for call in (
        lambda: engine.generate(text),
        lambda: engine.retrieve(text),
        lambda: engine.score("q", text),
        lambda: engine.score(text, "a"),
        lambda: engine.classify("q", [text, "b"]),
        lambda: engine.generate("q", documents=[Document("t", text, score=1.0)]),
        lambda: engine.generate("q", documents=[Document(text, "t", score=1.0)]),
    ):
        with pytest.raises(InputError, match="surrogate"):
            call()


@pytest.mark.parametrize("question", NOT_QUESTIONS, ids=stable_repr)
def test_what_is_no_question_is_named(pair: Pair, question: Any) -> None:
    with pytest.raises(InputError, match=r"^(A question|Question \d) is \w+; it must be a str"):
        pair.engine.generate(question)


def test_the_wrong_one_of_a_list_is_named(pair: Pair) -> None:
    with pytest.raises(InputError, match=r"^Question 2 is NoneType"):
        pair.engine.generate(["a", "b", None])


def test_lists_of_any_length(pair: Pair) -> None:
    assert pair.engine.generate([]) == []
    asked = pair.questions(31, 6)
    many = pair.engine.generate(asked * 60)  # more than one encoder batch
    alone = [pair.engine.generate(question) for question in asked]
    for place, answer in enumerate(many):
        assert answer.texts == alone[place % 6].texts
        assert answer.score == pytest.approx(alone[place % 6].score, abs=1e-4)
    assert [a.text for a in pair.engine.generate(q for q in asked)] == [a.text for a in alone]


# --- numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_docs", [10**4, 2**31, 10**12, 2**63])
def test_more_documents_than_there_are(pair: Pair, n_docs: int) -> None:
    answer = pair.engine.generate("who?", n_docs=n_docs, max_length=4)
    count = pair.engine.retriever.index.count
    assert len(answer.documents) == count == len(pair.engine.retrieve("who?", n_docs))
    assert "fewer_documents" in answer.flags
    assert_sound(answer)


@pytest.mark.parametrize("n_docs", [0, -1, 1.0, 2.5, True, "3", None, [1], math.nan])
def test_wrong_numbers_of_documents(pair: Pair, n_docs: Any) -> None:
    with pytest.raises(OptionsError, match=r"n_docs is .*, it must be a whole number of at least 1"):
        pair.engine.generate("who?", n_docs=n_docs)
    if n_docs is not None:  # the default, there
        with pytest.raises(InputError, match=r"n_docs is .*; it must be a whole number of at least 1"):
            pair.engine.retrieve("who?", n_docs)


def test_a_numpy_number_is_told_what_is_wrong_with_it(pair: Pair) -> None:
    with pytest.raises(
        OptionsError, match=r"of at least 1 as a Python number, which its item\(\) returns\.$"
    ):
        pair.engine.generate("who?", n_docs=np.int64(5))
    with pytest.raises(
        InputError, match=r"Document 0 of question 0 is str; .* ragengine\.Document\(title=\.\.\."
    ):
        pair.engine.generate("who?", documents=["text"])


def test_more_beams_than_tokens_are_searched(pair: Pair) -> None:
    beams = pair.engine.bundle.manifest.generator.vocab_size + 1
    assert_sound(pair.engine.generate("who?", num_beams=beams, max_length=4, n_docs=1))


@pytest.mark.parametrize(
    "options", [{"num_beams": 10**9}, {"num_beams": 10**6, "num_return_sequences": 10**6}]
)
def test_what_no_machine_holds_is_refused_with_numbers(pair: Pair, options: dict[str, Any]) -> None:
    with pytest.raises(MemoryLimitError, match=r"may need .* MB, .* can be had here; ask for fewer"):
        pair.engine.generate("who?", **options)


def test_an_answer_beyond_the_models_positions(pair: Pair) -> None:
    positions = pair.engine.bundle.manifest.generator.max_positions
    for options in ({"max_length": positions + 1}, {"max_new_tokens": positions}, {"max_length": 10**12}):
        with pytest.raises(OptionsError, match=rf"the model has {positions} positions"):
            pair.engine.generate("who?", **options)
    answer = pair.engine.generate("who?", max_length=positions, min_length=positions, num_beams=1)
    assert len(answer.hypotheses[0].token_ids) == positions - 1
    assert_sound(answer)


# --- arrays -------------------------------------------------------------------------------------------


def _arrays(q: int = 2, d: int = 3, s: int = 5) -> list[Any]:
    ids = np.random.default_rng(0).integers(5, 40, (q, d, s))
    return [ids, np.ones_like(ids), np.zeros((q, d), np.float32)]


WRONG_ARRAYS: dict[str, Any] = {
    "NaN score": (2, lambda a: a + np.nan),
    "infinite score": (2, lambda a: a + np.inf),
    "no score at all": (2, lambda a: a - np.inf),
    "scores of text": (2, lambda a: a.astype(str)),
    "scores of integers": (2, lambda a: a.astype(int)),
    "scores of another shape": (2, lambda a: a[:, :2]),
    "negative token": (0, lambda a: a - 100),
    "token beyond the vocabulary": (0, lambda a: a + 10**9),
    "tokens of floats": (0, lambda a: a.astype(float)),
    "tokens of objects": (0, lambda a: a.astype(object)),
    "two axes": (0, lambda a: a[0]),
    "no questions": (0, lambda a: a[:0]),
    "no documents": (0, lambda a: a[:, :0]),
    "no tokens": (0, lambda a: a[..., :0]),
    "mask of another shape": (1, lambda a: a[..., :2]),
    "mask of floats": (1, lambda a: a.astype(float)),
    "mask that hides all": (1, lambda a: a * 0),
    "ragged": (0, lambda a: [[1, 2], [3]]),
    "nothing": (0, lambda a: None),
}


@pytest.mark.parametrize("name", WRONG_ARRAYS)
def test_wrong_arrays_are_one_sentence(pair: Pair, name: str) -> None:
    place, damage = WRONG_ARRAYS[name]
    arrays = _arrays()
    arrays[place] = damage(arrays[place])
    labels = np.full((2, 3), 5)
    for call in (
        lambda: pair.engine.generator.generate(*arrays),
        lambda: pair.engine.generator.score(*arrays, labels),
        lambda: list(pair.engine.generator.stream(*arrays)),
    ):
        with pytest.raises(RagEngineError) as error:
            call()
        assert len(str(error.value)) < 400


def test_one_document_may_have_no_score_and_the_mask_any_numbers(pair: Pair) -> None:
    ids, mask, scores = _arrays()
    scores[:, 1] = -np.inf
    for odd in (mask * 7, mask.astype(bool), mask.astype(np.uint8)):
        found = pair.engine.generator.generate(ids, odd, scores.astype(np.float64))
        for best, *_ in found:
            assert np.isfinite(best.score)
            assert (best.token_posteriors[:, 1] == 0).all()


@pytest.mark.parametrize(
    "labels",
    [np.zeros((2, 0), int), np.zeros(3, int), np.full((2, 3), -1), np.full((2, 3), 10**9),
     np.full((2, 3), 0.5), np.full((3, 3), 5), [["a", "b"]], None, np.full((2, 5000), 5)],
    ids=lambda labels: f"{getattr(labels, 'shape', labels)}",
)  # fmt: skip
def test_wrong_labels_are_one_sentence(pair: Pair, labels: Any) -> None:
    with pytest.raises(InputError):
        pair.engine.generator.score(*_arrays(), labels)


# --- documents ----------------------------------------------------------------------------------------


def test_odd_documents_are_read(pair: Pair) -> None:
    texts = [
        "",
        " ",
        "\0",
        "x" * 300_000,
        "word " * 60_000,
        ODD["emoji"],
        ODD["special tokens"],
        ODD["control"],
    ]
    documents = [Document(title=text[:50], text=text, score=float(i)) for i, text in enumerate(texts)]
    answer = pair.engine.generate("who?", documents=[*documents, documents[0]])
    assert [document.text for document in answer.documents] == [*texts, texts[0]]
    assert_sound(answer)


@pytest.mark.parametrize("score", [math.nan, math.inf, "a", [], object(), 1 + 2j], ids=stable_repr)
def test_wrong_scores_are_named(pair: Pair, score: Any) -> None:
    documents = [Document("t", "text", score=score), Document("t", "text", score=1.0)]
    with pytest.raises(InputError, match="score"):
        pair.engine.generate("who?", documents=documents)


@pytest.mark.parametrize(
    "documents",
    [[], [[]], None, "text", ["text"], [None], [("t", "x")], {}, [Document("t", "x", score=-math.inf)],
     [Document(1, "x", score=1.0)], [Document("t", None, score=1.0)], [Document("t", b"x", score=1.0)]],
    ids=repr,
)  # fmt: skip
def test_what_are_no_documents(pair: Pair, documents: Any) -> None:
    if documents is None:
        assert_sound(pair.engine.generate("who?", documents=documents))
        return
    with pytest.raises(InputError):
        pair.engine.generate("who?", documents=documents)


# --- callbacks ----------------------------------------------------------------------------------------


class _OwnError(Exception):
    pass


CALLBACK_SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1},
    "beams": {"num_beams": 3},
    "sampling": {"num_beams": 1, "num_return_sequences": 2, "do_sample": True, "seed": 1},
    "beam sampling": {"num_beams": 2, "do_sample": True, "seed": 1},
    "thorough": {"num_beams": 2, "marginalize": "sequence"},
    "fast": {"num_beams": 2, "marginalize": "sequence", "search": "fast"},
    "joint": {"num_beams": 2, "marginalize": "sequence", "search": "joint"},
}
each_search = pytest.mark.parametrize("search", CALLBACK_SEARCHES.values(), ids=CALLBACK_SEARCHES)


@each_search
def test_a_callback_written_for_transformers_reads_its_tokens(pair: Pair, search: dict[str, Any]) -> None:
    """transformers gives a tensor [T]; whatever is done with an int64 array leaves the search alone."""

    def allowed(question: int, sent: np.ndarray) -> list[int]:
        assert (type(question), type(sent), sent.dtype) == (int, np.ndarray, np.int64)
        last, tokens = sent[-1].item(), sent.tolist()
        assert sent.shape == (len(tokens),)
        assert last == tokens[-1]
        sent[:] = -5
        return [2, *((last + question + step) % 300 for step in (5, 9, 14))]

    def allowed_from_list(question: int, sent: np.ndarray) -> list[int]:
        return allowed(question, np.array(sent.tolist()))

    asked, options = ["who?", "where?"], {"max_length": 8, "min_length": 6, **search}
    given = pair.engine.generate(asked, prefix_allowed_tokens_fn=allowed, **options)
    copied = pair.engine.generate(asked, prefix_allowed_tokens_fn=allowed_from_list, **options)
    assert [a.texts for a in given] == [a.texts for a in copied]


@each_search
@pytest.mark.parametrize(
    "own", [_OwnError, TypeError, StopIteration, MemoryError, OptionsError, KeyboardInterrupt]
)
def test_an_exception_in_a_callback_comes_out_and_leaves_the_engine(
    pair: Pair, search: dict[str, Any], own: type[BaseException]
) -> None:
    before, raised = pair.engine.generate("who?"), own("mine")

    def raising(question: int, tokens: np.ndarray) -> list[int]:
        if len(tokens) == 2:
            raise raised
        return [5, 6]

    with pytest.raises(own) as error:
        pair.engine.generate("who?", prefix_allowed_tokens_fn=raising, **search)
    assert error.value is raised
    assert error.value.__cause__ is None
    assert error.value.__context__ is None
    assert pair.engine.generate("who?").texts == before.texts


@pytest.mark.parametrize("allowed", [[], None, 5, "ab", [1.5], [-1], [10**9], [None], [[1]]], ids=repr)
def test_wrong_allowed_tokens_are_one_sentence(pair: Pair, allowed: Any) -> None:
    with pytest.raises(RagEngineError) as error:
        pair.engine.generate("who?", prefix_allowed_tokens_fn=lambda question, tokens: allowed)
    assert len(str(error.value)) < 400


# --- the command --------------------------------------------------------------------------------------


def run_ask(pair: Pair, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[bytes]:
    program = [*COMMAND, "ask", str(pair.bundle), str(pair.engine.retriever.index.path), "--device", "cpu"]
    return subprocess.run([*program, *arguments], capture_output=True, check=False, **settings)


def test_the_command_in_a_plain_locale_prints_utf8(pair: Pair) -> None:
    environment = {**os.environ, "LC_ALL": "C", "LANG": "C", "PYTHONIOENCODING": "ascii"}
    run = run_ask(pair, "--json", "Где? 👩‍👧", env=environment, stdin=subprocess.DEVNULL)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.decode("utf-8"))["question"] == "Где? 👩‍👧"


def test_a_reader_that_goes_away_is_no_traceback(pair: Pair) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    program = [*COMMAND, "ask", str(pair.bundle), str(pair.engine.retriever.index.path), "--json", "who?"]
    with os.fdopen(writing, "wb") as closed:
        run = subprocess.run(program, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr == ""


def test_a_deadline_of_the_command(pair: Pair) -> None:
    run = run_ask(pair, "--deadline", "0.000001", "who?")
    assert run.returncode == 1
    assert run.stderr.decode().startswith("ragengine: The deadline of 1e-06 s passed")


def test_wrong_lines_of_a_questions_file_are_numbered(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    index = pair.engine.retriever.index.path
    for line in (b'{"question": 1, "answers": []}', b'{"question": "\\ud800", "answers": ["x"]}', b"{"):
        path.write_bytes(b'{"question": "a", "answers": []}\n' + line + b"\n")
        program = [*COMMAND, "eval", str(pair.bundle), str(index), str(path)]
        run = subprocess.run(program, capture_output=True, text=True, check=False)
        assert run.returncode == 1
        assert "line 2" in run.stderr
        assert "Traceback" not in run.stderr
