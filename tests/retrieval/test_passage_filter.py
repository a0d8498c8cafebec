"""Filters: the passages that match, and the best of them in an index of every kind."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragengine.corpus.passage import Passage
from ragengine.errors import InputError
from ragengine.indexing.build import build_index
from ragengine.indexing.update import add_passages, delete_passages, merge_indexes
from ragengine.retrieval import passage_filter
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.passage_filter import MatchingRows, PassageFilter, PassageFilters
from ragengine.retrieval.passage_store import PassageStore, write_passages
from tests.support.bundles import brute_force, random_vectors, rewrite_manifest
from tests.support.described_passages import OWNERS, VECTORS, metadata_of, write_corpus


def check_filters(path: Path, rows: list[int], filters: list[Any]) -> None:
    """Every filter finds what an exhaustive search of the passages that match finds."""
    asked = random_vectors(6, seed=3)
    with PassageIndex.open(path) as opened:
        assert [p.metadata for p in opened.passages(range(opened.count))] == [metadata_of(r) for r in rows]
        for chosen in filters:
            wanted = PassageFilter.of(chosen)
            fields = {} if wanted is None else dict(wanted.fields)
            there = [r for r in rows if all(metadata_of(r).get(f) in v for f, v in fields.items())]
            for n_docs in (1, 5, len(rows)):
                if not there:
                    with pytest.raises(InputError, match=r"No passage matches .* fields 'owner', 'year'"):
                        opened.search_documents(asked, n_docs, filter=chosen)
                    continue
                best, scores = brute_force(VECTORS[there].astype(np.float16), asked, n_docs)
                for found, ids, expected in zip(
                    opened.search_documents(asked, n_docs, filter=chosen), best, scores, strict=True
                ):
                    assert [d.id for d in found] == [f"p{there[place]}" for place in ids]
                    assert [d.score for d in found] == pytest.approx(expected.tolist(), abs=1e-6)
                    assert [d.metadata for d in found] == [metadata_of(there[place]) for place in ids]


FILTERS: list[Any] = [
    {"owner": "data"},
    {"owner": ["data", "search"], "year": [2020, 2021]},
    {"owner": OWNERS[2]},
    {"owner": "data\x00"},
    {"owner": ""},
    {"owner": "data", "year": "1999"},
    {"Owner": "data"},
    {"owner": "\ud800"},
]
NO_FILTER: list[Any] = [None, {}]
"""With which an approximate index is approximate."""


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "HNSW8"])
def test_filters_after_adding_deleting_and_merging(tmp_path: Path, factory: str) -> None:
    path = tmp_path / "index"
    build_index(**write_corpus(tmp_path, range(60)), index=path, factory=factory)
    check_filters(path, list(range(60)), FILTERS + (NO_FILTER if factory == "Flat" else []))
    add_passages(path, **write_corpus(tmp_path, range(60, 100)))
    check_filters(path, list(range(100)), FILTERS[:3])
    delete_passages(path, [f"p{row}" for row in range(0, 100, 3)])
    rows = [row for row in range(100) if row % 3]
    check_filters(path, rows, FILTERS)
    build_index(**write_corpus(tmp_path, range(100, 120)), index=tmp_path / "second")
    merge_indexes(path, tmp_path / "second", path, force=True)
    check_filters(path, [*rows, *range(100, 120)], FILTERS[:3])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), factory=st.sampled_from(["Flat", "IVF3,Flat", "SQ8", "HNSW4", "PQ4x4"]))
def test_any_filter_after_any_deletion_finds_the_best_that_match(
    tmp_path: Path, data: st.DataObject, factory: str
) -> None:
    count = data.draw(st.integers(20, 60), "passages")
    field, value = st.sampled_from(["a", "b", "é"]), st.sampled_from(["x", "y", "z", "1"])
    metadata = [data.draw(st.dictionaries(field, value, max_size=3)) for _ in range(count)]
    stored = random_vectors(count, seed=data.draw(st.integers(0, 99)))
    lines = [
        json.dumps({"id": f"p{n}", "title": "", "text": "t"} | fields) for n, fields in enumerate(metadata)
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    np.save(tmp_path / "p.npy", stored)
    arguments = write_corpus(tmp_path, range(1)) | {
        "passages": tmp_path / "p.jsonl", "embeddings": tmp_path / "p.npy"
    }  # fmt: skip
    build_index(**arguments, index=tmp_path / "index", factory=factory, force=True)
    gone = data.draw(st.sets(st.integers(1, count - 1), max_size=count - 1), "deleted")
    delete_passages(tmp_path / "index", [f"p{row}" for row in gone])
    asked = random_vectors(3, seed=7)
    with PassageIndex.open(tmp_path / "index", verify="size") as opened:
        for _ in range(4):
            values = st.one_of(value, st.lists(value, min_size=1, max_size=3))
            chosen = data.draw(st.dictionaries(field, values, min_size=1, max_size=3), "filter")
            n_docs = data.draw(st.integers(1, count + 5), "n_docs")
            there = [
                row
                for row, fields in enumerate(metadata)
                if row not in gone and all(fields.get(name, "-") in wanted for name, wanted in chosen.items())
            ]
            if not there:
                with pytest.raises(InputError, match="No passage matches the filter"):
                    opened.search_documents(asked, n_docs, filter=chosen)
                continue
            best, scores = brute_force(stored[there].astype(np.float16), asked, n_docs)
            found = opened.search_documents(asked, n_docs, filter=chosen)
            assert [[d.id for d in one] for one in found] == [[f"p{there[i]}" for i in row] for row in best]
            np.testing.assert_allclose([[d.score for d in one] for one in found], scores, rtol=1e-6)


def test_an_index_of_the_first_format_has_no_metadata_and_is_added_to(tmp_path: Path) -> None:
    path = tmp_path / "index"
    build_index(**write_corpus(tmp_path, range(20)), index=path)
    with sqlite3.connect(path / "passages.sqlite") as connection:
        connection.execute("DROP TABLE metadata")
    connection.close()
    rewrite_manifest(path, format_version=1)
    with PassageIndex.open(path) as opened:
        assert opened.passages([1])[0].metadata == {}
        with pytest.raises(InputError, match=r"No passage matches .*; no passage has metadata"):
            opened.search(random_vectors(1), 3, filter={"owner": "data"})
    manifest = add_passages(path, **write_corpus(tmp_path, range(20, 40)))
    assert manifest.count == 40
    assert json.loads((path / "manifest.json").read_text())["format_version"] == 2
    with PassageIndex.open(path) as opened:
        assert [p.metadata for p in opened.passages([1, 22])] == [{}, metadata_of(22)]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("owner=data", "filter is 'owner=data'; it must be a mapping"),
        ({3: "x"}, "filter has the field 3; a field's name is a text"),
        ({"": "x"}, "filter has the field ''"),
        ({"owner": []}, "filter has no value for 'owner'"),
        ({"owner": None}, "filter has the value None for 'owner'; a value is a text, a number"),
        ({"owner": b"data"}, "filter has the value b'data' for 'owner'"),
        ({"owner": [{"a": 1}]}, "filter has the value {'a': 1} for 'owner'"),
    ],
)
def test_what_is_no_filter_is_refused(wrong: Any, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        PassageFilter.of(wrong)


def test_rows_are_bits() -> None:
    count = 19
    for seed in range(9):
        mask = np.random.default_rng(seed).random(count) < seed / 8
        rows = MatchingRows.of_mask(mask)
        assert rows.count == len(rows.rows) == mask.sum()
        assert rows.rows.tolist() == np.flatnonzero(mask).tolist()
        assert (rows.bits.dtype, len(rows.bits)) == (np.uint8, 3)
        assert [rows.selector.is_member(row) for row in range(count)] == mask.tolist()
        assert rows.selector is rows.selector


@pytest.fixture
def filters(tmp_path: Path) -> Iterator[tuple[PassageFilters, list[str]]]:
    """Of 40 passages, and the values that were looked for in their file."""
    write_passages(tmp_path / "s", (Passage(f"{r}", "t", "x", metadata=metadata_of(r)) for r in range(40)))
    with closing(PassageStore(tmp_path / "s")) as store:
        looked_for, rows_with = [], store.rows_with

        def noted(field: str, value: str) -> Any:
            looked_for.append(value)
            return rows_with(field, value)

        with patch.object(store, "rows_with", noted):
            yield PassageFilters(store), looked_for


def wanted(**fields: Any) -> PassageFilter:
    made = PassageFilter.of(fields)
    assert made is not None
    return made


def test_fields_are_all_wanted_and_one_of_their_values(filters: tuple[PassageFilters, list[str]]) -> None:
    known, _ = filters
    chosen = wanted(owner=["data", "search"], year=[2020, "2021"])
    expected = [
        row
        for row in range(40)
        if metadata_of(row).get("owner") in ("data", "search") and metadata_of(row)["year"] != "2022"
    ]
    assert known.matching(chosen).rows.tolist() == expected


def test_the_filters_used_last_are_remembered(
    filters: tuple[PassageFilters, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passage_filter, "_MOST_KEPT", 2)
    known, looked_for = filters
    first, second, third = (wanted(year=year) for year in (2020, 2021, 2022))
    kept = known.matching(first)
    known.matching(second)
    assert known.matching(wanted(year=[2020])) is kept
    known.matching(third)  # in the place of the second
    assert known.matching(first) is kept
    assert looked_for == ["2020", "2021", "2022"]
    known.matching(second)
    assert looked_for == ["2020", "2021", "2022", "2021"]
    known.matching(first)
    known.matching(third)
    assert looked_for[4:] == ["2022"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (0, "No passage matches the filter year='1999'; no passage has metadata."),
        (1, "; passages have the fields 'f0'."),
        (8, "; passages have the fields 'f0', 'f1', 'f2', 'f3', 'f4', 'f5', 'f6', 'f7'."),
        (9, ", 'f6', 'f7' and others."),
        (12, ", 'f6', 'f7' and others."),
    ],
)
def test_a_filter_that_nothing_matches_names_the_fields(tmp_path: Path, fields: int, said: str) -> None:
    metadata = {f"f{number:x}": "v" for number in range(fields)}
    write_passages(tmp_path / "s", [Passage("a", "t", "x", metadata=metadata)])
    with closing(PassageStore(tmp_path / "s")) as store:
        for _ in range(2):
            with pytest.raises(InputError, match=f"{re.escape(said)}$"):
                PassageFilters(store).matching(wanted(year=1999))


def test_a_filter_without_fields_is_none() -> None:
    assert PassageFilter.of(None) is PassageFilter.of({}) is None
    checked = wanted(b="x", a=["z", "y", "z"])
    assert PassageFilter.of(checked) is checked
    assert checked.fields == (("a", ("y", "z")), ("b", ("x",)))
    assert wanted(a=b"raw".decode(), b={"c"}).to_dict() == {"a": ["raw"], "b": ["c"]}


def test_values_are_compared_as_metadata_holds_them() -> None:
    found = PassageFilter.of({"year": {2024, 2025}, "paid": True, "share": 0.5, "owner": "data"})
    assert found is not None
    assert found.to_dict() == {
        "owner": ["data"], "paid": ["true"], "share": ["0.5"], "year": ["2024", "2025"]
    }  # fmt: skip
    assert str(found) == "owner='data' and paid='true' and share='0.5' and year='2024' or '2025'"
