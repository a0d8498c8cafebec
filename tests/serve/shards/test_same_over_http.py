"""Filters, deletions and rebuilt shards over HTTP: what one index of the same passages finds, or an error."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ragengine import delete_passages, shard_index
from ragengine.errors import InputError, ShardError
from ragengine.retrieval import candidates
from ragengine.retrieval.open_index import open_index
from ragengine.retrieval.searched_index import SearchedIndex
from ragengine.retrieval.searching import search_index
from ragengine.retrieval.sharding.remote.options import RemoteOptions
from ragengine.runtime.cancellation import NEVER
from tests.support.bundles import E, random_vectors, write_bundle
from tests.support.served import free_port, running
from tests.support.sharded import COUNT, addressed, shard_folders, write_owned_index

DELETED = [f"p{row}" for row in range(0, COUNT, 5)]  # whole in no shard, of both owners, with equal vectors
FILTERS = [None, {"owner": "sales"}, {"owner": ["sales", "data"]}, {"owner": "data"}]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"), E)


@pytest.fixture(scope="module", params=["Flat", "IVF8,Flat", "OPQ2_4,IVF4,PQ2x4"])
def opened(
    request: pytest.FixtureRequest, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[SearchedIndex, SearchedIndex]]:
    """An index that passages were deleted from, and its shards behind servers."""
    folder = tmp_path_factory.mktemp("served")
    index = write_owned_index(folder, bundle, request.param)
    delete_passages(index, DELETED)
    shard_index(index, folder / "shards", shards=3)
    with contextlib.ExitStack() as stack:
        urls = [
            [stack.enter_context(running(models=(), shard=path)).url]
            for path in shard_folders(folder / "shards")
        ]
        remote = addressed(folder / "shards", folder / "remote", urls)
        yield (
            stack.enter_context(open_index(index)),
            stack.enter_context(open_index(remote, remote=RemoteOptions(timeout=30))),
        )


@pytest.mark.parametrize("few", [0, candidates.FEW_MATCHING])
@pytest.mark.parametrize("filter", FILTERS)
def test_filters_and_deletions(
    opened: tuple[SearchedIndex, SearchedIndex],
    filter: dict[str, object] | None,
    few: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, divided = opened
    # Matching rows are all scored where they are few, and searched among otherwise.
    monkeypatch.setattr(candidates, "FEW_MATCHING", few)
    questions = random_vectors(12, E, seed=3)
    questions[:8] = random_vectors(COUNT, E)[:8]  # some were deleted in one shard and left in another
    for n_docs in (7, COUNT):
        ours = divided.search_documents(questions, n_docs, filter=filter)
        assert ours == whole.search_documents(questions, n_docs, filter=filter)
        assert not {document.id for found in ours for document in found} & {*DELETED}
    np.testing.assert_array_equal(
        divided.matching_rows(filter),
        whole.matching_rows(filter),
    )


def test_what_was_deleted_is_not_there(opened: tuple[SearchedIndex, SearchedIndex]) -> None:
    whole, divided = opened
    ids = [f"p{row}" for row in range(COUNT)]
    assert divided.count == whole.count == COUNT - len(DELETED)
    assert divided.missing_ids(ids) == whole.missing_ids(ids) == DELETED
    assert divided.rows_of(ids) == whole.rows_of(ids)
    assert divided.passages(range(divided.count)) == whole.passages(range(whole.count))
    for index in opened:
        with pytest.raises(InputError, match="passages have the fields 'owner'"):
            index.search(random_vectors(1, E), 1, filter={"owner": "nobody"})


def test_a_shard_that_was_rebuilt_is_refused_until_it_is_the_old_one_again(
    bundle: Path, tmp_path: Path
) -> None:
    old = write_owned_index(tmp_path / "old", bundle, "Flat")
    shard_index(old, tmp_path / "shards", shards=2)
    new = write_owned_index(tmp_path / "new", bundle, "Flat")
    delete_passages(new, ["p0"])
    shard_index(new, tmp_path / "rebuilt", shards=2)
    ports = [free_port(), free_port()]
    first, second = shard_folders(tmp_path / "shards")
    urls = [[f"http://127.0.0.1:{port}"] for port in ports]
    path = addressed(tmp_path / "shards", tmp_path / "remote", urls)
    questions = random_vectors(4, E, seed=5)
    options = RemoteOptions(timeout=30, rest=0.0)
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(models=(), shard=second, port=ports[1]))
        whole = stack.enter_context(open_index(old))
        expected = whole.search_documents(questions, 6)
        with running(models=(), shard=first, port=ports[0]):
            strict = stack.enter_context(open_index(path, remote=options))
            lenient = stack.enter_context(open_index(path, remote=options, allow_partial=True))
            assert strict.search_documents(questions, 6) == expected
            assert lenient.search_documents(questions, 6) == expected
        with running(models=(), shard=shard_folders(tmp_path / "rebuilt")[0], port=ports[0]):
            with pytest.raises(
                ShardError, match=r"The shard 0 .*409, .* another one was asked for"
            ) as refused:
                strict.search_documents(questions, 6)
            assert refused.value.refused
            with pytest.raises(ShardError, match=r"The shard 0 .* answers from another index"):
                open_index(path, remote=options)
            found = search_index(lenient, questions, 6, None, NEVER)
            (missing,) = found.missing
            assert missing.startswith("shard 0 ")
            rows = whole.search(questions, COUNT).rows
            left = [[p.id for p in whole.passages(some[some >= COUNT // 2][:6])] for some in rows]
            assert [[document.id for document in one] for one in found.documents] == left
        with running(models=(), shard=first, port=ports[0]):
            assert strict.search_documents(questions, 6) == expected
            again = search_index(lenient, questions, 6, None, NEVER)
            assert (again.documents, again.missing) == (expected, ())
