"""Messages between an engine and the servers of its shards."""

import json
import struct

import numpy as np
import pytest

from ragengine.errors import InputError
from ragengine.retrieval.candidates import Candidates, Plan
from ragengine.retrieval.passage_filter import PassageFilter
from ragengine.retrieval.sharding.remote import messages
from ragengine.retrieval.sharding.remote.addresses import Address
from ragengine.retrieval.sharding.remote.options import RemoteOptions
from ragengine.retrieval.sharding.remote.wire import decode, encode

ASKED = np.ones((1, 4), np.float32)
ROWS = np.array([[-1, 2, 5]], np.int64)
SCORES = np.array([[-np.inf, 1.5, -2]], np.float32)


def raw(
    head: object, rest: bytes = b"", *, magic: bytes = b"RGSH", version: int = 1, extra: int = 0
) -> bytes:
    text = json.dumps(head).encode()
    return struct.pack("<4sII", magic, version, len(text) + extra) + text + rest


def test_the_bytes_are_those_that_the_reference_describes() -> None:
    message = encode({"a": 1}, {"v": np.array([[1.0, -2.0]], np.float32)})
    head = b'{"a": 1, "arrays": [["v", "float32", [1, 2]]]}'
    assert message == b"RGSH" + struct.pack("<II", 1, len(head)) + head + struct.pack("<ff", 1.0, -2.0)
    read = decode(message, {"v": ("float32", 2)})
    assert read.head == {"a": 1}
    np.testing.assert_array_equal(read.arrays["v"], [[1, -2]])


def test_a_search_arrives_as_it_was_sent() -> None:
    questions = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    plan, wanted = Plan(7, 3, True), PassageFilter.of({"owner": ["a", "b"], "year": 2024})
    read = messages.read_search_request(messages.search_request(questions, plan, wanted))
    np.testing.assert_array_equal(read[0], questions)
    assert read[1:] == (plan, wanted)
    found = messages.read_search_reply(messages.search_reply(Candidates(ROWS, SCORES, SCORES)), ASKED, 3, 6)
    np.testing.assert_array_equal(found.rows, ROWS)
    np.testing.assert_array_equal(found.scores, SCORES)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "does not begin"),
        (b"GET / HTTP/1.1\r\n\r\n", "does not begin"),
        (raw({"arrays": []}, magic=b"RGSX"), "does not begin"),
        (raw({"arrays": []}, version=2), "version 2"),
        (raw({"arrays": []}, extra=1), "more than"),
        (raw([]), "lists no arrays"),
        (raw({"arrays": []})[:-1] + b"]", "not JSON"),
        (raw({"arrays": [["v", "float64", [1, 1]]]}, bytes(8)), "not a name, a type and a shape"),
        (raw({"arrays": [["v", "float32", [1, -1]]]}), "not a name, a type and a shape"),
        (raw({"arrays": [["v", "float32", [1 << 40, 1 << 40]]]}), "longer than the message"),
        (raw({"arrays": [["v", "float32", [1]]]}, bytes(4)), "1 axes"),
        (raw({"arrays": [["w", "float32", [1, 1]]]}, bytes(4)), "'w'"),
        (raw({"arrays": []}), "no array v"),
        (raw({"arrays": [["v", "float32", [1, 1]]]}, bytes(3)), "longer than the message"),
        (raw({"arrays": [["v", "float32", [1, 1]]]}, bytes(5)), "1 bytes follow"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decode(data, {"v": ("float32", 2)})


@pytest.mark.parametrize("cut", range(0, 100, 7))
def test_a_cut_message_is_refused(cut: int) -> None:
    whole = messages.search_reply(Candidates(ROWS, SCORES, SCORES))
    with pytest.raises(ValueError):
        messages.read_search_reply(whole[: len(whole) - 1 - cut], ASKED, 3, 6)


@pytest.mark.parametrize(
    ("rows", "scores", "said"),
    [
        ([[0, 6]], [[1, 1]], "not from 0 to 5"),
        ([[-2, 0]], [[1, 1]], "not from 0 to 5"),
        ([[3, 3]], [[1, 1]], "twice"),
        ([[0, 1]], [[1, np.nan]], "NaN"),
        ([[0, 1]], [[1, np.inf]], "NaN"),
        ([[-1, 1]], [[1, 1]], "NaN"),
        ([[0, 1, 2]], [[1, 1, 1]], "shapes"),
        ([[0], [1]], [[1], [1]], "shapes"),
    ],
)
def test_candidates_that_cannot_be_are_refused(
    rows: list[list[int]], scores: list[list[float]], said: str
) -> None:
    numbers = np.array(scores, np.float32)
    reply = messages.search_reply(Candidates(np.array(rows, np.int64), numbers, numbers))
    with pytest.raises(ValueError, match=said):
        messages.read_search_reply(reply, ASKED, 2, 6)


def test_fewer_candidates_than_there_are_and_impossible_scores_are_refused() -> None:
    reply = messages.search_reply(Candidates(ROWS, SCORES, SCORES))  # two of three, the larger score 2
    messages.read_search_reply(reply, ASKED, 3, 6, max_norm=1.0)  # |q| = 2
    messages.read_search_reply(messages.search_reply(Candidates.none(1)), ASKED, 0, 0, full=True, max_norm=0)
    with pytest.raises(ValueError, match="a score that no stored vector can have"):
        messages.read_search_reply(reply, ASKED, 3, 6, max_norm=0.99)
    with pytest.raises(ValueError, match="fewer than 3 candidates"):
        messages.read_search_reply(reply, ASKED, 3, 6, full=True)
    narrow = messages.search_reply(Candidates(ROWS[:, 1:], SCORES[:, 1:], SCORES[:, 1:]))
    messages.read_search_reply(narrow, ASKED, 2, 6, full=True)
    with pytest.raises(ValueError, match="fewer than 3 candidates"):
        messages.read_search_reply(narrow, ASKED, 3, 6, full=True)


@pytest.mark.parametrize(
    ("texts", "pairs", "said"),
    [
        (["a", "c"], [], "not asked for"),
        (["a", "a"], [], "twice"),
        (["a"], [[0, 6]], "not from 0 to 5"),
        (["a"], [[0, -1]], "not from 0 to 5"),
        (["a"], [[1, 0]], "an id that it has not"),
        (["a"], [[0, 3], [0, 3]], "ascend"),
        (["a"], [[0, 3], [0, 2]], "ascend"),
        (["a"], [[0, 3, 1]], "pairs"),
    ],
)
def test_rows_of_ids_that_cannot_be_are_refused(texts: list[str], pairs: list[object], said: str) -> None:
    width = len(pairs[0]) if pairs else 2
    reply = encode({"texts": texts}, {"pairs": np.array(pairs, np.int64).reshape(-1, width)})
    with pytest.raises(ValueError, match=said):
        messages.read_rows_of_reply(reply, 6, ["a", "b"])


@pytest.mark.parametrize(
    ("rows", "said"), [([2, 1], "ascend"), ([1, 1], "ascend"), ([6], "0 to 5"), ([-1], "0 to")]
)
def test_matching_rows_that_cannot_be_are_refused(rows: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        messages.read_matching_rows(messages.rows_message(np.array(rows, np.int64)), 6)


@pytest.mark.parametrize("plan", [None, {}, {"width": 0}, {"width": "1"}, {"width": 1, "nprobe": 0}])
def test_a_wrong_plan_is_refused(plan: object) -> None:
    with pytest.raises(ValueError, match="plan"):
        messages.read_search_request(encode({"plan": plan}, {"questions": np.zeros((1, 2), np.float32)}))


@pytest.mark.parametrize(
    "text",
    ["", "host:8000", "ftp://host", "http://user@host", "http://host/?a=1", "http://host:0", "http://host:70000",
     "http://ho st", "http://host\r\nX: y", "http://host/..//a", "http://[::1"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Address.of(text)


def test_addresses() -> None:
    assert Address.of("http://h:8000/") == Address("http://h:8000", False, "h", 8000, "")
    assert Address.of("https://[::1]/a/b") == Address("https://[::1]/a/b", True, "::1", 443, "/a/b")


@pytest.mark.parametrize(
    "wrong", [{"timeout": 0}, {"hedge_after": -1}, {"rest": float("nan")}, {"timeout": "5"}]
)
def test_wrong_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        RemoteOptions(**wrong)
