"""The file of passages: blocks and their limits, ids, metadata, and files that a stranger made."""

import errno
import gc
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ragengine.corpus.passage import Passage
from ragengine.errors import IndexFolderError
from ragengine.retrieval import passage_store
from ragengine.retrieval.passage_store import PassageStore, rename_passages, write_passages
from ragengine.runtime import lifecycle
from tests.support.described_passages import metadata_of

KINDS = ["a", "b", "c"]


def passage(row: int) -> Passage:
    metadata = {"kind": KINDS[row % 3], "row": str(row)} if row % 4 != 3 else {}
    return Passage(f"id{row}", f"title {row}", "x" * (row % 7), metadata=metadata)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    assert write_passages(tmp_path / "store", map(passage, range(30))) == 30
    return tmp_path / "store"


@pytest.fixture
def store(path: Path) -> Iterator[PassageStore]:
    with closing(PassageStore(path)) as opened:
        yield opened


@contextmanager
def forging(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as connection:
        yield connection
        connection.commit()


# --- the file -----------------------------------------------------------------------------------------


def test_rows_are_fetched_whole_in_any_order(store: PassageStore) -> None:
    rows = [7, 0, 29, 4, 7]
    assert store.fetch(rows) == [passage(row) for row in rows]
    assert store.fetch([]) == []


def test_no_other_file_is_written_meanwhile(tmp_path: Path) -> None:
    """No journal, which a killed run would leave behind."""
    with passage_store._written(tmp_path / "store") as connection:
        connection.execute("CREATE TABLE a (b)")
        connection.execute("INSERT INTO a VALUES (1)")
        assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_file_is_read_as_a_stranger_s(store: PassageStore) -> None:
    """No code of its schema is run, its pages are checked, and no fork closes what this process has open."""
    settings = {"trusted_schema": 0, "cell_size_check": 1}
    assert {name: store._query(f"PRAGMA {name}")[0][0] for name in settings} == settings
    assert store in lifecycle._leaked_in_forks
    with pytest.raises(IndexFolderError, match=r"cannot be read: .*readonly"):
        store._query("DELETE FROM passages")


@pytest.mark.skipif(sys.platform != "linux", reason="looks at open files as Linux shows them")
@pytest.mark.parametrize("statement", ["DROP TABLE passages", "DELETE FROM passages WHERE row < 2"])
def test_what_is_refused_is_closed(path: Path, statement: str) -> None:
    with forging(path) as connection:
        connection.execute(statement)
    with pytest.raises(IndexFolderError) as error:
        PassageStore(path)
    links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert path not in links
    assert error.value.__traceback__ is not None  # which still holds the store


def test_what_is_dropped_is_closed(path: Path) -> None:
    store = PassageStore(path)
    connection = store._connection
    del store
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


# --- blocks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1, 4, 29, 30])
@pytest.mark.parametrize("size", [1, 4, 7, 30, 31])
def test_blocks_are_full_but_the_last(store: PassageStore, size: int, first: int) -> None:
    rows = list(range(first, 30))
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    assert list(store.blocks(size, first)) == [[passage(row) for row in part] for part in parts]


@pytest.mark.parametrize(("longest", "sizes"), [(8, [2, 1]), (9, [2, 1]), (10, [3]), (11, [3]), (30, [3])])
def test_a_block_ends_with_the_passage_that_makes_it_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longest: int, sizes: list[int]
) -> None:
    """Ids, titles and texts count."""
    write_passages(
        tmp_path / "store", [Passage("a", "b", "cc"), Passage("d", "ee", "ff"), Passage("g", "", "")]
    )
    monkeypatch.setattr(passage_store, "BLOCK_CHARACTERS", longest)
    with closing(PassageStore(tmp_path / "store")) as store:
        assert [len(block) for block in store.blocks(5)] == sizes


@pytest.mark.parametrize(
    ("longest", "sizes"), [(1, [1, 1, 1]), (8, [1, 1, 1]), (9, [2, 1]), (16, [2, 1]), (17, [3]), (99, [3])]
)
def test_a_block_ends_with_the_metadata_that_makes_it_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longest: int, sizes: list[int]
) -> None:
    """Names and values count, and the fields of a passage stay together."""
    fields = {"k1": "vv", "k2": "vv"}
    passages = [Passage(str(row), "", "", metadata=fields) for row in range(3)]
    write_passages(tmp_path / "store", passages)
    monkeypatch.setattr(passage_store, "BLOCK_CHARACTERS", longest)
    with closing(PassageStore(tmp_path / "store")) as store:
        blocks = list(store.blocks(5))
        assert [one for block in blocks for one in block] == passages
        assert [len(block) for block in blocks] == sizes


# --- rows by id and by metadata -----------------------------------------------------------------------


def test_rows_of_ids_are_looked_for_in_parts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename_passages(path, [(3, "twice"), (9, "twice"), (20, "twice")])
    monkeypatch.setattr(passage_store, "_IDS_TOGETHER", 2)
    with closing(PassageStore(path)) as store:
        asked = ["id7", "twice", "id0", "none", "\ud800", "id29"]
        assert store.rows_of(asked) == {"id7": [7], "twice": [3, 9, 20], "id0": [0], "id29": [29]}
        assert store.rows_of([]) == {}
        assert [one.id for one in store.fetch([3, 4, 3])] == ["twice", "id4", "twice"]


@pytest.mark.parametrize("together", [1, 3, 7, 8, 9])
def test_rows_with_a_value_come_in_blocks(
    store: PassageStore, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    monkeypatch.setattr(passage_store, "_ROWS_TOGETHER", together)
    expected = [row for row in range(0, 30, 3) if row % 4 != 3]
    blocks = [block.tolist() for block in store.rows_with("kind", "a")]
    assert [row for block in blocks for row in block] == expected
    assert [len(block) for block in blocks[:-1]] == [together] * (len(blocks) - 1)
    assert list(store.rows_with("kind", "z")) == list(store.rows_with("none", "b")) == []
    assert list(store.rows_with("\ud800", "b")) == list(store.rows_with("kind", "\ud800")) == []


def test_fields_are_listed_in_their_order(store: PassageStore, tmp_path: Path) -> None:
    assert [store.metadata_fields(most) for most in (0, 1, 2, 3)] == [
        [],
        ["kind"],
        ["kind", "row"],
        ["kind", "row"],
    ]
    write_passages(tmp_path / "bare", [Passage("a", "", "")])
    with closing(PassageStore(tmp_path / "bare")) as bare:
        assert bare.metadata_fields(3) == []
        assert list(bare.rows_with("kind", "b")) == []
        bare.check_metadata()


# --- files that a stranger made -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("CREATE VIEW v AS SELECT 1", r"holds \[\('table', 'metadata'.* instead of the table of passages"),
        ("DROP TABLE passages", "instead of the table of passages"),
        ("UPDATE passages SET row = row + 1000", "begins with row 1000 instead of 0; build the index again"),
        ("DELETE FROM passages WHERE row < 2", "begins with row 2 instead of 0"),
    ],
)
def test_what_is_not_as_it_was_written_is_refused(path: Path, statement: str, message: str) -> None:
    with forging(path) as connection:
        connection.execute(statement)
    with pytest.raises(IndexFolderError, match=message):
        PassageStore(path)


def test_rows_that_are_missing_are_noticed_when_they_are_read(path: Path) -> None:
    with forging(path) as connection:
        connection.execute("DELETE FROM passages WHERE row IN (4, 5, 6, 7)")
    with closing(PassageStore(path)) as store:
        assert (store.count, store.count_all()) == (30, 26)
        assert [[one.id for one in block] for block in store.blocks(4, 4)][:2] == [
            [],
            ["id8", "id9", "id10", "id11"],
        ]
        with pytest.raises(IndexFolderError, match="has no row 5; its rows are 0 to 29"):
            store.fetch([4 - 1, 5])


@pytest.mark.parametrize("column", ["id", "title", "text"])
def test_a_passage_is_texts(path: Path, column: str) -> None:
    with forging(path) as connection:
        connection.execute(f"UPDATE passages SET {column} = x'00ff' WHERE row = 3")
    with (
        closing(PassageStore(path)) as store,
        pytest.raises(IndexFolderError, match="a passage that is not text"),
    ):
        store.fetch([3])


@pytest.mark.parametrize("row", [30, -1, 2**40])
def test_metadata_is_that_of_a_passage(path: Path, row: int) -> None:
    with forging(path) as connection:
        connection.execute("INSERT INTO metadata VALUES (?, 'kind', 'new')", [row])
    with closing(PassageStore(path)) as store:
        if row < 0:
            assert list(store.rows_with("kind", "new")) == []
            return
        with pytest.raises(IndexFolderError, match=f"metadata of row {row}; its rows are 0 to 29; build"):
            list(store.rows_with("kind", "new"))


def test_metadata_whose_index_is_damaged_is_noticed(path: Path) -> None:
    with forging(path) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("DELETE FROM sqlite_master WHERE name = 'metadata_values'")
    with forging(path) as connection:
        connection.execute("DELETE FROM metadata WHERE row = 5")
        connection.execute("PRAGMA writable_schema=ON")
        (root,) = connection.execute("SELECT max(rootpage) FROM sqlite_master").fetchone()
        values: list[Any] = ["index", "metadata_values", "metadata", root + 1, passage_store._METADATA_VALUES]
        connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", values)
    with (
        closing(PassageStore(path)) as store,
        pytest.raises(IndexFolderError, match=r"is damaged|cannot be read"),
    ):
        store.check_metadata()


def test_a_full_disk_is_an_error_of_the_system(path: Path) -> None:
    fill = "PRAGMA max_page_count=3; UPDATE passages SET text = zeroblob(90000)"
    with pytest.raises(OSError, match="full") as error, passage_store._written(path) as connection:
        connection.executescript(fill)
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(path))


def test_errors_of_sqlite_are_errors_of_the_system(path: Path) -> None:
    with pytest.raises(OSError, match="no such table") as error, passage_store._written(path) as connection:
        connection.execute("SELECT * FROM absent")
    assert error.value.errno == errno.EIO
    with pytest.raises(OSError, match="unable to open") as error:
        write_passages(path / "below", [])
    assert error.value.errno == errno.EACCES


def test_a_store_without_passages(tmp_path: Path) -> None:
    assert write_passages(tmp_path / "store", []) == 0
    with closing(PassageStore(tmp_path / "store")) as store:
        assert (store.count, store.count_all(), list(store.blocks(3))) == (0, 0, [])


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
