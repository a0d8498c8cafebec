"""What an engine asks the server of a shard, and what that answers: both sides of the wire."""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import FloatArray, RowArray
from ragengine.corpus.passage import Passage
from ragengine.messages import one_line, short_repr
from ragengine.retrieval.candidates import Candidates, Plan, euclidean_norms
from ragengine.retrieval.passage_filter import PassageFilter
from ragengine.retrieval.sharding.remote.wire import decode, encode
from ragengine.storage.schema import join_errors, parse

SHARD_PATH: Final = "/v1/shard"
"""``GET``: what the server has; below it the calls, ``POST``."""
INDEX_HEADER: Final = "X-Ragengine-Index"
"""With a request: the fingerprint of the index that shall answer; with a response: of the one that did."""
DEADLINE_HEADER: Final = "X-Ragengine-Deadline-Ms"
MOST_ROWS: Final = 1024
"""Passages, or vectors, that one request may ask for."""
_ROUNDING: Final = 1e-6  # of a score to float32, relative
BYTES_A_CANDIDATE: Final = 16
"""A row, what FAISS scored it, and its score."""


def search_request(questions: FloatArray, plan: Plan, filter: PassageFilter | None) -> bytes:
    """Ask for candidates."""
    return encode({"plan": asdict(plan), "filter": _filter_json(filter)}, {"questions": questions})


def read_search_request(body: bytes) -> tuple[FloatArray, Plan, PassageFilter | None]:
    """Questions, plan and filter; raises :class:`ValueError` or :class:`InputError`."""
    message = decode(body, {"questions": ("float32", 2)})
    parsed = parse(Plan, message.head.get("plan"), "plan")
    if parsed.value is None:
        raise ValueError(f"it has a plan that cannot be used: {join_errors(parsed.errors)}")
    plan = parsed.value
    if plan.width < 1 or (plan.nprobe is not None and plan.nprobe < 1):
        raise ValueError(f"its plan has the width {plan.width} and nprobe {plan.nprobe}; both begin at 1")
    return message.arrays["questions"], plan, PassageFilter.of(message.head.get("filter"))


def search_reply(found: Candidates) -> bytes:
    """Candidates."""
    return encode({}, {"rows": found.rows, "proposed": found.proposed, "scores": found.scores})


def read_search_reply(
    body: bytes,
    questions: FloatArray,
    width: int,
    count: int,
    *,
    full: bool = False,
    max_norm: float = math.inf,
) -> Candidates:
    """Candidates for questions [Q, E] of an index of ``count`` rows; raises :class:`ValueError`.

    With ``full`` there have to be ``width`` for each.  No score exceeds |q(x)| times ``max_norm``, the
    largest norm of a stored vector (Cauchy and Schwarz).
    """
    arrays = decode(body, {"rows": ("int64", 2), "proposed": ("float32", 2), "scores": ("float32", 2)}).arrays
    rows, proposed, scores = arrays["rows"], arrays["proposed"], arrays["scores"]
    if (
        not rows.shape == proposed.shape == scores.shape
        or len(rows) != len(questions)
        or rows.shape[1] > width
    ):
        shapes = [list(array.shape) for array in (rows, proposed, scores)]
        raise ValueError(
            f"it has candidates of the shapes {shapes} for {len(questions)} questions and {width} each"
        )
    absent = rows < 0
    if (rows >= count).any() or (rows < -1).any():
        raise ValueError(f"it names a row that is not from 0 to {count - 1}")
    ordered = np.sort(rows, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise ValueError("it names a row twice")
    for numbers in (proposed, scores):
        if not np.isfinite(numbers[~absent]).all() or not np.isneginf(numbers[absent]).all():
            raise ValueError("it has a score that is NaN or infinite")
    if full and (absent.any() or rows.shape[1] < width):
        raise ValueError(f"it has fewer than {width} candidates for a question, and the shard has more")
    if np.isfinite(max_norm):
        most = euclidean_norms(questions)[:, None] * max_norm * (1 + _ROUNDING)
        if (np.abs(scores.astype(np.float64), where=~absent, out=np.zeros(scores.shape)) > most).any():
            raise ValueError("it has a score that no stored vector can have")
    return Candidates(rows, proposed, scores)


def rows_message(rows: NDArray[np.int64]) -> bytes:
    """Rows [N]: those that are asked for, or those that match."""
    return encode({}, {"rows": rows})


def read_matching_rows(body: bytes, count: int) -> RowArray:
    """Rows [N] of an index of ``count`` rows, ascending; raises :class:`ValueError`."""
    rows = read_rows(body, count)
    if (np.diff(rows) <= 0).any():
        raise ValueError("its rows do not ascend")
    return rows


def read_rows(body: bytes, count: int) -> RowArray:
    """Rows [N] of an index of ``count`` rows; raises :class:`ValueError`."""
    rows: RowArray = decode(body, {"rows": ("int64", 1)}).arrays["rows"]
    if len(rows) and not (rows.min() >= 0 and rows.max() < count):
        raise ValueError(f"it names a row that is not from 0 to {count - 1}")
    return rows


def vectors_reply(vectors: FloatArray) -> bytes:
    """Stored vectors [N, E]."""
    return encode({}, {"vectors": vectors})


def read_vectors_reply(body: bytes, shape: tuple[int, int]) -> FloatArray:
    """Vectors of ``shape`` [N, E], all finite; raises :class:`ValueError`."""
    vectors: FloatArray = decode(body, {"vectors": ("float32", 2)}).arrays["vectors"]
    if vectors.shape != shape or not np.isfinite(vectors).all():
        raise ValueError(f"it does not have {shape[0]} finite vectors of {shape[1]}")
    return vectors


def passages_reply(passages: Sequence[Passage]) -> bytes:
    """Passages; texts are JSON."""
    return encode({"passages": [asdict(passage) for passage in passages]}, {})


def read_passages_reply(body: bytes, count: int) -> list[Passage]:
    """``count`` passages; raises :class:`ValueError` for what is none."""
    listed = decode(body, {}).head.get("passages")
    if not isinstance(listed, list) or len(listed) != count:
        raise ValueError(f"it does not have the {count} passages that were asked for")
    return [_passage(one) for one in listed]


def filter_request(filter: PassageFilter) -> bytes:
    """Ask for what matches a filter."""
    return encode({"filter": _filter_json(filter)}, {})


def read_filter_request(body: bytes) -> PassageFilter:
    """The filter; raises :class:`ValueError` or :class:`InputError`."""
    filter = PassageFilter.of(decode(body, {}).head.get("filter"))
    if filter is None:
        raise ValueError("it has no filter")
    return filter


def number_message(number: int) -> bytes:
    """A number: how many match, or how many are wanted."""
    return encode({"number": number}, {})


def read_number(body: bytes, most: int) -> int:
    """A number up to ``most``; raises :class:`ValueError`."""
    number = decode(body, {}).head.get("number")
    if type(number) is not int or not 0 <= number <= most:
        raise ValueError(f"it has the number {short_repr(number)}, not one up to {most}")
    return number


def texts_message(texts: Sequence[str]) -> bytes:
    """Ids, or names of fields."""
    return encode({"texts": list(texts)}, {})


def read_texts(body: bytes) -> list[str]:
    """Ids, or names of fields; raises :class:`ValueError`."""
    texts = decode(body, {}).head.get("texts")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("it has no list of texts")
    return texts


def rows_of_reply(found: Mapping[str, Sequence[int]]) -> bytes:
    """The rows of ids: a row of pairs (place of the id in the head, row of the index)."""
    pairs = [(place, row) for place, rows in enumerate(found.values()) for row in rows]
    return encode({"texts": list(found)}, {"pairs": np.array(pairs, np.int64).reshape(-1, 2)})


def read_rows_of_reply(body: bytes, count: int, asked: Collection[str]) -> dict[str, list[int]]:
    """The rows of ids, some of those ``asked``, in an index of ``count`` rows; raises :class:`ValueError`."""
    ids, pairs = read_texts_and(body)
    if not {*ids} <= {*asked} or len({*ids}) < len(ids):
        raise ValueError("it names an id that was not asked for, or one twice")
    found: dict[str, list[int]] = {id: [] for id in ids}
    for place, row in pairs.tolist():
        if not (0 <= place < len(ids) and 0 <= row < count):
            raise ValueError(f"it names a row that is not from 0 to {count - 1}, or an id that it has not")
        found[ids[place]].append(row)
    if any(one >= next for rows in found.values() for one, next in itertools.pairwise(rows)):
        raise ValueError("its rows do not ascend")
    return found


def read_texts_and(body: bytes) -> tuple[list[str], NDArray[np.int64]]:
    """Texts and pairs int64 [N, 2]; raises :class:`ValueError`."""
    message = decode(body, {"pairs": ("int64", 2)})
    texts, pairs = message.head.get("texts"), message.arrays["pairs"]
    if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts) or pairs.shape[1] != 2:
        raise ValueError("it has no texts with pairs of numbers")
    return texts, pairs


def _filter_json(filter: PassageFilter | None) -> dict[str, list[str]] | None:
    return None if filter is None else filter.to_dict()


def _passage(content: Any) -> Passage:
    given = content if isinstance(content, dict) else {}
    metadata = given.get("metadata", {})
    names, numbered = ("id", "title", "text"), given.get("numbered")
    texts = [given.get(name) for name in names]
    pairs = [*metadata, *metadata.values()] if isinstance(metadata, dict) else [None]
    if not all(isinstance(text, str) for text in (*texts, *pairs)):
        raise ValueError(f"it has a passage that is none: {one_line(short_repr(content))}")
    return Passage(**{name: given[name] for name in names}, numbered=numbered is True, metadata=metadata)
