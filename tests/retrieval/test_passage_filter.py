"""Filtered searches: the best of the passages that match, whatever kind of index proposes them."""

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

from ragengine.corpus.passage import Passage, checked_passage
from ragengine.errors import IndexFolderError, InputError, PassagesError
from ragengine.indexing.build import build_index
from ragengine.indexing.update import add_passages, delete_passages, merge_indexes
from ragengine.retrieval import candidates, passage_filter, passage_store
from ragengine.retrieval.faiss_api import search_faiss
from ragengine.retrieval.gpu.search_worker import SearchWorker
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.passage_filter import MatchingRows, PassageFilter, PassageFilters
from ragengine.retrieval.passage_store import PassageStore, write_passages
from ragengine.retrieval.vector_index import VectorIndex
from tests.retrieval.test_index import flat
from tests.retrieval.test_vector_index import GRAPHS, LISTED, OTHERS, N, index, questions, vectors
from tests.support.bundles import E, brute_force, random_vectors, rewrite_manifest, write_bundle

# --- among the vectors ------------------------------------------------------------------------------


def matching(share: float, seed: int = 0) -> MatchingRows:
    return MatchingRows.of_mask(np.random.default_rng(seed).random(N) < share)


@pytest.mark.parametrize("factory", [*LISTED, *OTHERS, *GRAPHS])
@pytest.mark.parametrize("share", [0.004, 0.3, 1.0])
def test_a_filter_that_few_match_is_searched_exactly_by_every_kind_of_index(
    factory: str, share: float
) -> None:
    rows = matching(share)
    found = index(factory).search(questions(), 7, matching=rows)
    expected, scores = brute_force(vectors()[rows.rows], questions(), 7)
    count = min(7, rows.count)
    np.testing.assert_array_equal(found.rows[:, :count], rows.rows[expected])
    np.testing.assert_array_equal(found.scores[:, :count], scores)
    assert (found.rows[:, count:] == -1).all()


@pytest.mark.parametrize("factory", [*LISTED, *OTHERS, *GRAPHS])
@pytest.mark.parametrize("share", [0.004, 0.1, 0.6, 1.0])
def test_every_kind_of_index_finds_as_many_as_match(
    factory: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "FEW_MATCHING", 0)  # as if there were millions
    searched, rows = index(factory), matching(share)
    for n_docs, chosen in ((1, {}), (7, {}), (40, {"rerank_width": 60}), (N, {})):
        found = searched.search(questions(), n_docs, matching=rows, **chosen)
        count = min(n_docs, rows.count)
        assert (found.rows[:, count:] == -1).all()
        for question, row, scores in zip(questions(), found.rows[:, :count], found.scores, strict=True):
            assert len(set(row) & set(rows.rows)) == count
            np.testing.assert_array_equal(scores[:count], searched.exact_scores(question, row))
            assert (np.diff(scores[:count]) <= 0).all()


@given(seed=st.integers(0, 2**32), count=st.integers(1, 90), n_docs=st.integers(1, 100), few=st.booleans())
def test_an_exact_index_finds_exactly_the_best_that_match(
    seed: int, count: int, n_docs: int, few: bool
) -> None:
    random = np.random.default_rng(seed)
    stored = random.integers(-2, 3, (count, 3)).astype(np.float16)  # nearly every score is tied
    mask = random.random(count) < random.random()
    mask[random.integers(count)] = True
    asked = random.integers(-2, 3, (3, 3)).astype(np.float32)
    rows = MatchingRows.of_mask(mask)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "FEW_MATCHING", 4096 if few else 0)
        found = flat(stored).search(asked, n_docs, matching=rows)
    expected, scores = brute_force(stored[mask], asked, n_docs)
    there = min(n_docs, rows.count)
    np.testing.assert_array_equal(found.rows[:, :there], rows.rows[expected])
    np.testing.assert_array_equal(found.scores[:, :there], scores)
    assert (found.rows[:, there:] == -1).all()


def test_a_listed_index_compares_about_as_many_rows_with_a_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    """One passage in twenty matches, so twenty times the lists are searched."""
    monkeypatch.setattr(candidates, "FEW_MATCHING", 0)
    rows = matching(0.05)
    searched = index("IVF12,Flat")
    exact, _ = brute_force(vectors()[rows.rows], questions(), 5)
    found = searched.search(questions(), 5, matching=rows).rows
    np.testing.assert_array_equal(found, rows.rows[exact])  # one list of twelve would hold about 6 of 75
    one = searched.search(questions(), 5, nprobe=1, matching=rows).rows
    assert (one != found).any()


def test_what_the_searched_lists_hold_enough_of_is_not_scored_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "FEW_MATCHING", 0)
    searched, everything = index("IVF12,Flat"), matching(1.0)
    assert everything.count == N
    near_the_first = vectors()[:1] + 0.1 * questions()  # so that row 0 is among what is found
    asked = near_the_first.astype(np.float32)
    found = searched.search(asked, 9, nprobe=1, matching=everything)
    assert (found.rows[:, 0] == 0).any()
    assert (found.rows != brute_force(vectors(), asked, 9)[0]).any()
    np.testing.assert_array_equal(found.rows, searched.search(asked, 9, nprobe=1).rows)


def test_a_device_is_not_asked_for_the_candidates_of_a_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAISS's GPU indexes select no rows: the index on the host proposes."""
    monkeypatch.setattr(candidates, "FEW_MATCHING", 0)
    shared, rows = index("IVF12,Flat"), matching(0.3)
    searched = VectorIndex(shared.faiss_index, vectors(), shared.max_norm, {})
    asked: list[int] = []

    def search(asking: Any, width: int, nprobe: int | None) -> Any:
        asked.append(width)
        return search_faiss(shared.faiss_index, asking, width)

    searched.search_with(SearchWorker(search, most_selected=2048))
    try:
        found = searched.search(questions(), 7, matching=rows)
        assert asked == []
        np.testing.assert_array_equal(found.rows, shared.search(questions(), 7, matching=rows).rows)
        searched.search(questions(), 7)
        assert asked == [7]
    finally:
        searched.close()


# --- among the passages -----------------------------------------------------------------------------

OWNERS = ["data", "search", 'o\'brien = "x"', "data\x00", ""]


def metadata_of(row: int) -> dict[str, str]:
    if row % 7 == 0:
        return {}
    return {"owner": OWNERS[row % 5], "year": str(2020 + row % 3)}


def write_corpus(folder: Path, rows: range) -> dict[str, Any]:
    """Numbered passages with metadata, and their vectors, as arguments of a build."""
    lines = [
        json.dumps({"id": f"p{row}", "title": f"t{row}", "text": "x", "none": None} | metadata_of(row))
        for row in rows
    ]
    name = f"{rows.start}-{rows.stop}"
    (folder / f"{name}.jsonl").write_text("\n".join(lines))
    np.save(folder / f"{name}.npy", VECTORS[rows.start : rows.stop])
    bundle = folder / "bundle"
    if not bundle.exists():
        write_bundle(bundle, E)
    return {"passages": folder / f"{name}.jsonl", "embeddings": folder / f"{name}.npy", "bundle": bundle}


VECTORS = random_vectors(120)


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


def test_many_matching_rows_are_listed_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage_store, "_ROWS_TOGETHER", 3)
    monkeypatch.setattr(passage_store, "BLOCK_CHARACTERS", 10)
    write_passages(
        tmp_path / "store", (Passage(f"{r}", "t", "abc", metadata=metadata_of(r)) for r in range(40))
    )
    with closing(PassageStore(tmp_path / "store")) as store:
        found = [row for block in store.rows_with("owner", "search") for row in block.tolist()]
        assert found == [row for row in range(40) if metadata_of(row).get("owner") == "search"]
        assert store.metadata_fields(9) == ["owner", "year"]
        sizes = [len(block) for block in store.blocks(7)]
        assert sum(sizes) == 40
        assert max(sizes) < 4  # metadata count, too
        blocks = [passage for block in store.blocks(7) for passage in block]
        assert [passage.metadata for passage in blocks] == [metadata_of(row) for row in range(40)]


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


@pytest.mark.parametrize(
    ("record", "metadata"),
    [
        ({"year": 2024, "paid": True, "none": None, "tags": ["a", "é"], "empty": ""},
         {"year": "2024", "paid": "true", "tags": '["a", "é"]', "empty": ""}),
        ({"metadata": {"owner": "data", "n": 1.5}, "url": "u"}, {"owner": "data", "n": "1.5", "url": "u"}),
        ({"metadata": "plain"}, {"metadata": "plain"}),
        ({"metadata": {}}, {}),
    ],
)  # fmt: skip
def test_other_fields_of_a_record_are_metadata(record: dict[str, Any], metadata: dict[str, str]) -> None:
    assert checked_passage({"id": "1", "title": "t", "text": "x"} | record, "f").metadata == metadata


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            {"owner": "a", "metadata": {"owner": "b"}},
            "f: the field 'owner' is there twice, once in 'metadata'",
        ),
        ({"": "a"}, "f: a field has the name ''"),
        ({"owner": "\ud800"}, "f: 'owner' has half a surrogate pair"),
        ({"\ud800": "a"}, "f: a field's name has half a surrogate pair"),
        ({"owner": {1, 2}}, "f: 'owner' cannot be written as JSON"),
    ],
)
def test_metadata_that_cannot_be_kept_is_refused(record: dict[str, Any], said: str) -> None:
    with pytest.raises(PassagesError, match=re.escape(said)):
        checked_passage({"id": "1", "title": "t", "text": "x"} | record, "f")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("INSERT INTO metadata VALUES (99, 'owner', 'data')", "has metadata of row 99; its rows are 0 to 19"),
        ("INSERT INTO metadata VALUES (-1, 'a', 'data')", None),
        ("UPDATE metadata SET value = x'00ff' WHERE row = 1", "has a passage that is not text"),
        ("CREATE TABLE more (a)", "instead of the table of passages"),
        ("DROP INDEX metadata_values", "instead of the table of passages"),
    ],
)
def test_forged_metadata_is_refused(tmp_path: Path, change: str, said: str | None) -> None:
    write_passages(tmp_path / "s", (Passage(f"{r}", "t", "x", metadata=metadata_of(r)) for r in range(20)))
    with sqlite3.connect(tmp_path / "s") as connection:
        connection.execute(change)
    connection.close()

    def read() -> None:
        with closing(PassageStore(tmp_path / "s")) as store:
            store.fetch(range(20))
            list(store.rows_with("owner", "data"))

    if said is None:
        read()  # a row before the first is never looked at
    else:
        with pytest.raises(IndexFolderError, match=said):
            read()
