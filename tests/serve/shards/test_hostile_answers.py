"""Well-formed answers of a shard's server that cannot be right: an error that names shard and server."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine.errors import ShardError
from ragengine.retrieval.candidates import Candidates, Plan, SearchFacts
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.open_index import open_index
from ragengine.retrieval.passage_filter import PassageFilter
from ragengine.retrieval.sharding.asking import Search, searching
from ragengine.retrieval.sharding.manifest import ShardEntry, ShardsManifest
from ragengine.retrieval.sharding.remote import messages
from ragengine.retrieval.sharding.remote.network import Network
from ragengine.retrieval.sharding.remote.options import RemoteOptions
from ragengine.retrieval.sharding.remote.shard import RemoteShard
from ragengine.retrieval.sharding.remote.wire import encode
from ragengine.retrieval.sharding.sharded_index import ShardedIndex
from ragengine.retrieval.structure import Structure
from tests.support.paths import WORLDFACTS
from tests.support.served import running
from tests.support.sharded import addressed, answering, reply, shard_folders, write_shards

FINGERPRINT, COUNT, WIDE = "a" * 64, 6, 4
QUESTION = np.ones((1, WIDE), np.float32)
FACTS = SearchFacts(Structure("IndexIVFFlat", False, True, lists=2), COUNT, WIDE, max_norm=1.0)
HEADER = f"{messages.INDEX_HEADER}: {FINGERPRINT}"
OWNER = PassageFilter.of({"owner": "sales"})
assert OWNER is not None


def found(rows: list[int], scores: list[float]) -> bytes:
    numbers = np.array([scores], np.float32)
    return messages.search_reply(Candidates(np.array([rows], np.int64), numbers, numbers))


def vectors(*shape: int, value: float = 0.0) -> bytes:
    return messages.vectors_reply(np.full(shape, value, np.float32))


def passages(*contents: Any) -> bytes:
    return encode({"passages": list(contents)}, {})


GOOD = {"id": "a", "title": "t", "text": "x"}
TEXT = rb'{"passages": [{"id": "a", "title": "t", "text": "\ud800"}], "arrays": []}'
HALF = struct.pack("<4sII", b"RGSH", 1, len(TEXT)) + TEXT  # of a surrogate pair


def search(shard: RemoteShard) -> object:
    return shard.candidates(QUESTION, Plan(2))


CASES: list[tuple[Callable[[RemoteShard], object], bytes, str]] = [
    (search, found([0, 6], [1, 1]), "not from 0 to 5"),
    (search, found([0, 1], [1, np.nan]), "NaN"),
    (search, found([1, 1], [1, 1]), "twice"),
    (search, found([0, 1, 2], [1, 1, 1]), "shapes"),
    (search, messages.search_reply(Candidates.none(1)) + b"x", "follow"),
    (search, messages.search_reply(Candidates.none(2)), "shapes"),
    (search, vectors(1, WIDE), "'vectors'"),
    (lambda shard: shard.vectors(np.array([1, 2])), vectors(1, WIDE), "2 finite vectors of 4"),
    (lambda shard: shard.vectors(np.array([1, 2])), vectors(2, WIDE + 1), "2 finite vectors of 4"),
    (lambda shard: shard.vectors(np.array([1, 2])), vectors(2, WIDE, value=np.nan), "2 finite vectors"),
    (lambda shard: shard.passages([1, 2]), passages(GOOD), "the 2 passages"),
    (lambda shard: shard.passages([1]), passages({"id": "a", "title": "t"}), "a passage that is none"),
    (lambda shard: shard.passages([1]), passages({**GOOD, "text": 7}), "a passage that is none"),
    (lambda shard: shard.passages([1]), passages({**GOOD, "metadata": {"a": 1}}), "a passage that is none"),
    (lambda shard: shard.passages([1]), passages([]), "a passage that is none"),
    (lambda shard: shard.passages([1]), HALF, "not JSON"),
    (lambda shard: shard.rows_of(["a"]), messages.rows_of_reply({"b": [1]}), "not asked for"),
    (lambda shard: shard.rows_of(["a"]), messages.rows_of_reply({"a": [6]}), "not from 0 to 5"),
    (lambda shard: shard.matching_count(OWNER), messages.number_message(COUNT + 1), "not one up to 6"),
    (lambda shard: shard.matching_count(OWNER), messages.number_message(-1), "not one up to 6"),
    (lambda shard: shard.matching_count(OWNER), encode({"number": 1.0}, {}), "not one up to 6"),
    (lambda shard: shard.matching_rows(OWNER), messages.rows_message(np.array([0, 6])), "not from 0 to 5"),
    (lambda shard: shard.matching_rows(OWNER), messages.rows_message(np.array([2, 1])), "ascend"),
    (lambda shard: shard.metadata_fields(3), encode({"texts": [1]}, {}), "no list of texts"),
    (lambda shard: shard.info(), b"{}", "index"),
    (lambda shard: shard.info(), b"\xff", "codec"),
    (lambda shard: shard.info(), b'{"index": "' + b"a" * 64 + b'", "count": 7, "dimension": 4}', "7 vectors"),
]


@pytest.mark.parametrize(("ask", "body", "said"), CASES)
def test_an_answer_that_cannot_be_is_refused(
    ask: Callable[[RemoteShard], object], body: bytes, said: str
) -> None:
    with answering(reply(body, HEADER)) as url:
        entry = ShardEntry(0, COUNT, FINGERPRINT, addresses=(url,))
        shard = RemoteShard("shard 7", entry, FACTS, Network(), RemoteOptions(timeout=30))
        try:
            with pytest.raises(ShardError, match=said) as refused:
                ask(shard)
        finally:
            shard.close()
    assert str(refused.value).startswith(f"The shard 7 does not answer: {url}: its answer cannot be used")
    assert (refused.value.shard, refused.value.refused) == ("shard 7", True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards") / "shards", 2)


@pytest.fixture(scope="module")
def honest(folder: Path) -> Iterator[str]:
    with running(models=(), shard=shard_folders(folder)[0]) as served:
        yield served.url


@pytest.mark.parametrize("change", ["nothing", "few", "huge", "far"])
def test_a_search_goes_on_without_a_shard_that_lies(
    change: str, folder: Path, honest: str, tmp_path: Path
) -> None:
    """One server answers a search as it should, or with fewer rows, an impossible score, another's row."""
    entry = ShardsManifest.read(folder).shards[1]
    with (
        PassageIndex.open(WORLDFACTS / "index", verify="size") as whole,
        PassageIndex.open(shard_folders(folder)[1], verify="size") as part,
    ):
        question = whole.vectors(np.array([whole.count - 1]))
        right = part.propose(question, Plan(max(5, whole.manifest.search["rerank_width"])))
        everything = whole.search(question, whole.count).rows[0]
    rows, scores = right.rows.copy(), right.scores.copy()
    if change == "few":
        rows, scores = rows[:, 1:], scores[:, 1:]
    elif change == "huge":
        scores[0, 0] = 1e9
    elif change == "far":
        rows[0, -1] = entry.count
    body = messages.search_reply(Candidates(rows, scores, scores))
    with answering(reply(body, f"{messages.INDEX_HEADER}: {entry.fingerprint}")) as lying:
        path = addressed(folder, tmp_path / "remote", [[honest], [lying]])
        options = RemoteOptions(timeout=30)
        missing: set[str] = set()
        with open_index(path, remote=options, allow_partial=True) as index:
            with searching(Search(missing=missing)):
                found = index.search(question, 5).rows[0]
            assert isinstance(index, ShardedIndex)
            name = index.shards[1].name
            if change != "nothing":
                with pytest.raises(ShardError, match=f"The shard 1 .*{lying}.* cannot be used"):
                    index.search(question, 5)  # it keeps no note
    if change == "nothing":
        assert (missing, found.tolist()) == (set(), everything[:5].tolist())
    else:
        left = everything[everything < entry.first_row]
        assert (missing, found.tolist()) == ({name}, left[:5].tolist())
