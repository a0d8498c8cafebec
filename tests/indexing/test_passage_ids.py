"""Every passage has an id of its own, in any order of build, import, add, delete and merge."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ragengine.errors import PassagesError
from ragengine.indexing.build import build_index
from ragengine.indexing.import_index import import_index
from ragengine.indexing.update import add_passages, delete_passages, merge_indexes
from ragengine.retrieval.passage_store import PassageStore
from tests.support.bundles import E, random_vectors, rewrite_manifest, write_bundle

Ids = list[str | None]


@dataclass
class Files:
    """Writes passages, and reads them out of an index; each text occurs once."""

    folder: Path
    texts: int = 0

    def __post_init__(self) -> None:
        self.bundle = write_bundle(self.folder / "bundle", E)

    def write(self, ids: Ids) -> dict[str, Any]:
        lines = []
        for id in ids:
            record = {"title": "t", "text": f"text {self.texts}"}
            lines.append(json.dumps(record if id is None else {"id": id, **record}))
            self.texts += 1
        (self.folder / "passages.jsonl").write_text("\n".join(lines))
        np.save(self.folder / "vectors.npy", random_vectors(len(ids)))
        return {
            "passages": self.folder / "passages.jsonl",
            "embeddings": self.folder / "vectors.npy",
            "bundle": self.bundle,
        }

    def build(self, name: str, ids: Ids) -> Path:
        build_index(index=self.folder / name, force=True, **self.write(ids))
        return self.folder / name

    def import_(self, name: str, ids: Ids) -> Path:
        written = self.write(ids)
        index = faiss.IndexFlatIP(E)
        index.add(np.load(written["embeddings"]))
        faiss.write_index(index, str(self.folder / "some.faiss"))
        source, bundle = written["passages"], self.bundle
        faiss_file = self.folder / "some.faiss"
        import_index(source, self.folder / name, bundle=bundle, faiss=faiss_file, force=True)
        return self.folder / name


def read(index: Path) -> dict[str, str]:
    """The id of each text."""
    store = PassageStore(index / "passages.sqlite")
    try:
        passages = [passage for block in store.blocks(100) for passage in block]
    finally:
        store.close()
    assert len({passage.id for passage in passages}) == len(passages), "two passages share an id"
    return {passage.text: passage.id for passage in passages}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([None, None, None], ["0", "1", "2"]),
        (["a", None, "b", None], ["a", "1", "b", "3"]),
        ([None, "0"], ["2", "0"]),
        ([None, "0", "2", None], ["4", "0", "2", "3"]),
        (["1", None, "3", None, "5", "6"], ["1", "7", "3", "8", "5", "6"]),
        (["01", None], ["01", "1"]),
    ],
)
def test_number_that_another_passage_has_gives_way(files: Files, ids: Ids, expected: list[str]) -> None:
    assert list(read(files.build("index", ids)).values()) == expected
    assert list(read(files.import_("imported", ids)).values()) == expected


def test_passages_without_ids_are_added_after_others_were_deleted(files: Files) -> None:
    path = files.build("index", [None] * 5)
    delete_passages(path, ["1"])
    add_passages(path, **files.write([None, None]))
    assert list(read(path).values()) == ["0", "2", "3", "4", "6", "5"]


def test_indexes_without_ids_are_merged(files: Files) -> None:
    first, second = files.build("first", [None] * 3), files.build("second", [None] * 4)
    merge_indexes(first, second, files.folder / "both")
    assert list(read(files.folder / "both").values()) == ["0", "1", "2", "7", "8", "9", "3"]
    third = files.build("third", [None] * 3)
    merge_indexes(files.folder / "both", third, files.folder / "all")
    assert list(read(files.folder / "all").values())[7:] == ["10", "11", "12"]


def test_given_id_that_is_there_is_refused_with_advice_that_deletes_no_other_passage(files: Files) -> None:
    numbered, given = files.build("numbered", [None] * 3), files.build("given", ["2", "x"])
    with pytest.raises(PassagesError, match=r"the id '2' already; .* name the other one first\.") as caught:
        merge_indexes(numbered, given, files.folder / "both")
    assert "delete" not in str(caught.value)
    merge_indexes(given, numbered, files.folder / "both")
    assert list(read(files.folder / "both").values()) == ["2", "x", "0", "1", "5"]
    with pytest.raises(PassagesError, match="the id '2' already; these were numbered"):
        add_passages(numbered, **files.write(["2"]))
    with pytest.raises(PassagesError, match="the id 'x' already; replace them with ragengine index upsert"):
        add_passages(given, **files.write([None, "x"]))


@pytest.mark.parametrize("make", [Files.build, Files.import_])
def test_ids_that_are_given_twice_are_refused(files: Files, make: Any) -> None:
    with pytest.raises(PassagesError, match="Several passages have the id 'a', 'b', 'c' and others; give"):
        make(files, "index", ["a", "b", "c", "d", *"edcbaa", *["a"] * 50])
    assert not (files.folder / "index").exists()


def test_index_of_an_early_version_has_ids_that_stay(files: Files) -> None:
    """It does not say which ids are numbers; its own are never changed."""
    path = files.build("index", [None] * 3)
    (path / "numbered.npy").unlink()
    rewrite_manifest(path)
    add_passages(path, **files.write([None]))
    assert list(read(path).values()) == ["0", "1", "2", "3"]
    other = files.build("other", [None] * 3)
    merge_indexes(path, other, files.folder / "both")
    assert len(read(files.folder / "both")) == 7


def test_id_with_a_null_character_is_deleted(files: Files) -> None:
    path = files.build("index", ["a", "a\0b", "\0"])
    delete_passages(path, ["a\0b", "\0"])
    assert list(read(path).values()) == ["a"]


def test_equal_hashes_are_not_equal_ids(monkeypatch: pytest.MonkeyPatch, files: Files) -> None:
    """Ids are compared by 64 bits first."""
    monkeypatch.setattr("ragengine.indexing.passage_ids.hash", lambda _: 7, raising=False)
    assert list(read(files.build("index", ["a", "b"])).values()) == ["a", "b"]
    with pytest.raises(PassagesError, match="Several passages have the id 'a'"):
        files.build("index", ["b", "a", "a"])


GIVEN = st.sampled_from([*map(str, range(12)), "a", "b"])
IDS = st.lists(st.none() | GIVEN, min_size=1, max_size=5)


class Operations(RuleBasedStateMachine):
    """Two indexes under random operations, beside what each text's id must be if it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[Path, dict[str, str]] = {}
        self.given: dict[str, str] = {}

    @initialize()
    def begin(self) -> None:
        self.files = Files(Path(tempfile.mkdtemp()))

    def teardown(self) -> None:
        if hasattr(self, "files"):
            shutil.rmtree(self.files.folder)

    @rule(name=st.sampled_from(["one", "two"]), ids=IDS, imported=st.booleans())
    def build(self, name: str, ids: Ids, imported: bool) -> None:
        given = [id for id in ids if id is not None]
        make = self.files.import_ if imported else self.files.build
        self.changed(self.files.folder / name, {}, ids, len(set(given)) < len(given), lambda: make(name, ids))

    @precondition(lambda self: self.known)
    @rule(data=st.data(), ids=IDS)
    def add(self, data: st.DataObject, ids: Ids) -> None:
        path = data.draw(st.sampled_from(sorted(self.known)))
        there = self.known[path]
        given = [id for id in ids if id is not None]
        refused = len(set(given)) < len(given) or not set(given).isdisjoint(there.values())
        self.changed(path, there, ids, refused, lambda: add_passages(path, **self.files.write(ids)))

    @precondition(lambda self: any(len(there) > 1 for there in self.known.values()))
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        path = data.draw(
            st.sampled_from(sorted(path for path, there in self.known.items() if len(there) > 1))
        )
        there = self.known[path]
        text = data.draw(st.sampled_from(sorted(there)))
        delete_passages(path, [there[text]])
        del there[text]
        assert read(path) == there

    @precondition(lambda self: len(self.known) == 2)
    @rule(turned=st.booleans())
    def merge(self, turned: bool) -> None:
        first, second = sorted(self.known, reverse=turned)
        ours, theirs = self.known[first], self.known[second]
        if not ours.keys().isdisjoint(theirs):
            return  # they were merged already
        given = {self.given[text] for text in theirs if text in self.given}
        try:
            merge_indexes(first, second, first, force=True)
        except PassagesError:
            assert not given.isdisjoint(ours.values())
            return
        assert given.isdisjoint(ours.values())
        found = read(first)
        assert found.keys() == ours.keys() | theirs.keys()
        assert found.items() >= ours.items()
        assert all(found[text] == id for text, id in theirs.items() if id not in ours.values())
        self.known[first] = found

    def changed(self, path: Path, before: dict[str, str], ids: Ids, refused: bool, act: Any) -> None:
        first = self.files.texts
        if refused:
            with pytest.raises(PassagesError):
                act()
            return
        act()
        found = read(path)
        texts = [f"text {first + place}" for place in range(len(ids))]
        assert list(found) == [*before, *texts]
        assert found.items() >= before.items()
        self.given |= {text: id for text, id in zip(texts, ids, strict=True) if id is not None}
        self.known[path] = found

    @invariant()
    def given_ids_stay(self) -> None:
        for there in self.known.values():
            assert all(self.given.get(text, id) == id for text, id in there.items())


TestOperations = Operations.TestCase
TestOperations.settings = settings(max_examples=12, stateful_step_count=10, deadline=None)
