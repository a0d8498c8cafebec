"""Passage files that ragengine did not write: damaged pages, other tables, other types, journals."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import PASSAGES_FILE
from ragengine.retrieval.passage_store import PassageStore
from tests.robustness.children import Case
from tests.robustness.mutated.damage import drawing, flips, linked_copy, replace, spread, words
from tests.robustness.mutated.indexes import N, check_answers, write_index
from tests.support.bundles import rewrite_manifest

_PAGE = 4096
_SAMPLED, _SAMPLED_MANY = 80, 4000
"""Damaged bytes in the default and in the exhaustive run."""
_TABLE = (
    "CREATE TABLE passages "
    "(row INTEGER PRIMARY KEY, id TEXT NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL)"
)
_FORGED = "PRAGMA writable_schema=ON"

REFUSED: dict[str, list[str]] = {
    "a view": ["CREATE VIEW more AS SELECT * FROM passages"],
    "a trigger": ["CREATE TRIGGER t AFTER INSERT ON passages BEGIN SELECT 1; END"],
    "an index of rows": ["CREATE INDEX by_id ON passages (id)"],
    "a virtual table": ["CREATE VIRTUAL TABLE v USING fts5(x)"],
    "a table without rowid": [
        "DROP TABLE passages",
        "CREATE TABLE passages (row INTEGER PRIMARY KEY, id, title, text) WITHOUT ROWID",
    ],
    "a generated column": ["ALTER TABLE passages ADD COLUMN x AS (hex(zeroblob(1000000000)))"],
    "no table": ["DROP TABLE passages"],
    "metadata without their index": ["DROP INDEX metadata_values"],
    "no rows": ["DELETE FROM passages"],
    "rows that end before": [f"DELETE FROM passages WHERE row >= {N - 1}"],
    "rows that begin later": ["DELETE FROM passages WHERE row = 0"],
    "a negative row": ["INSERT INTO passages VALUES (-1, '', '', '')"],
    "a row at the end of numbers": ["INSERT INTO passages VALUES (9223372036854775807, '', '', '')"],
    "a schema that is a number": [_FORGED, "UPDATE sqlite_master SET sql = 1"],
    "a schema that is no SQL": [_FORGED, "UPDATE sqlite_master SET sql = 'CREATE TABLE passages ('"],
    "a table on page 10^9": [_FORGED, "UPDATE sqlite_master SET rootpage = 1000000000"],
    "a table on page 1": [_FORGED, "UPDATE sqlite_master SET rootpage = 1"],
    "a table on page -1": [_FORGED, "UPDATE sqlite_master SET rootpage = -1"],
    "a name with escapes": [_FORGED, "UPDATE sqlite_master SET name = char(27) || '[2J' || char(10)"],
}
FOUND_LATER: dict[str, list[str]] = {
    "a row in the middle is missing": ["DELETE FROM passages WHERE row = 30"],
    "a blob": ["UPDATE passages SET text = x'ff00' WHERE row % 2"],
    "no UTF-8": ["UPDATE passages SET text = CAST(x'ff41' AS TEXT)"],
    "half a surrogate": ["UPDATE passages SET title = CAST(x'eda080' AS TEXT)"],
    "an id with escapes": ["UPDATE passages SET id = char(27) || '[2J'"],
    "NUL": ["UPDATE passages SET text = 'a' || char(0) || 'b'"],
    "an empty text": ["UPDATE passages SET text = '', title = '', id = ''"],
    "a text of 20 MB": ["UPDATE passages SET text = hex(zeroblob(10000000)) WHERE row = 3"],
    "metadata without their table": ["DROP TABLE metadata"],
    "metadata of rows that are not there": ["INSERT INTO metadata VALUES (1000, 'owner', 'a')"],
    "metadata of a negative row": ["INSERT INTO metadata VALUES (-1, 'owner', 'a')"],
    "metadata that are blobs": ["UPDATE metadata SET value = x'ff00' WHERE row % 2"],
    "metadata that are no UTF-8": ["UPDATE metadata SET value = CAST(x'ff41' AS TEXT)"],
    "a field with escapes": ["UPDATE metadata SET field = char(27) || '[2J'"],
    "a value of 20 MB": ["UPDATE metadata SET value = hex(zeroblob(10000000)) WHERE row = 3"],
    "auto_vacuum": ["PRAGMA auto_vacuum=FULL", "VACUUM"],
    "pages of 512 bytes": ["PRAGMA page_size=512", "VACUUM"],
    "another user_version": ["PRAGMA user_version=-1", "PRAGMA application_id=7"],
}
_UNLIKE = {
    "numbers": ("INTEGER PRIMARY KEY, id, title, text", "SELECT row, row, row + 0.5, row FROM old"),
    "nulls": ("INTEGER PRIMARY KEY, id, title, text", "SELECT row, NULL, NULL, NULL FROM old"),
    "blobs": ("INTEGER PRIMARY KEY, id, title, text", "SELECT row, x'00', x'ff', zeroblob(10) FROM old"),
    "one column": ("INTEGER PRIMARY KEY", "SELECT row FROM old"),
    "no key": ("TEXT, id, title, text", "SELECT 'x', id, title, text FROM old"),
    "many columns": (
        "INTEGER PRIMARY KEY, a, b, c, id, title, text",
        "SELECT row, 1, 2, 3, id, title, text FROM old",
    ),
}
"""Tables whose schema is forged afterwards: columns, and the query that fills them."""


def prepare(base: Path) -> None:
    write_index(base / "index", "Flat")


def cases(base: Path, exhaustive: bool) -> Iterator[Case]:
    index = base / "index"
    content = (index / PASSAGES_FILE).read_bytes()
    size = len(content)
    for what, statements in REFUSED.items():
        change = partial(_executed, statements)
        yield Case(what, partial(_ask, index, change, check_answers), "refused", mentions=PASSAGES_FILE)
    for what, statements in FOUND_LATER.items():
        yield Case(what, partial(_ask, index, partial(_executed, statements), _read_all))
    for what, (columns, select) in _UNLIKE.items():
        change = partial(_executed, _unlike(columns, select))
        yield Case(f"under a forged schema, {what}", partial(_ask, index, change, _read_all), "refused")
    for what, beside in _journals(content).items():
        yield Case(f"beside it {what}", partial(_ask_beside, index, beside), "answered")
    yield Case("WAL mode", partial(_ask, index, _in_wal_mode, _read_all), "answered")
    whole = {
        "no database": b"no database " * 500,
        "zeros": bytes(size),
        "empty": b"",
        "its head": content[:100],
        "a schema that is not UTF-8": content.replace(b"CREATE TABLE", b"CREATE \xffABLE"),
    }
    whole |= {"its first page": content[:_PAGE], "pages turned": content[_PAGE:] + content[:_PAGE]}
    for what, other in whole.items():
        yield Case(
            what, partial(_ask, index, partial(_written, other), check_answers), "refused", PASSAGES_FILE
        )
    damages = [*flips(spread(size, 4000, header=200), seed=1), *words(spread(size - 8, 300, header=130), 4)]
    damages += words([page + at for page in range(0, size, _PAGE) for at in range(0, 12)], 2)
    for what, damage in drawing(3).sample(damages, _SAMPLED_MANY if exhaustive else _SAMPLED):
        yield Case(what, partial(_ask, index, partial(_written, damage(content)), _read_all))


def _unlike(columns: str, select: str) -> list[str]:
    statements = ["ALTER TABLE passages RENAME TO old", f"CREATE TABLE passages (row {columns})"]
    statements += [f"INSERT INTO passages {select}", "DROP TABLE old", _FORGED]
    return [*statements, f"UPDATE sqlite_master SET sql = '{_TABLE}' WHERE name = 'passages'"]


def _executed(statements: list[str], path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.text_factory = bytes
    for statement in statements:
        connection.execute(statement).fetchall()
    connection.close()


def _written(content: bytes, path: Path) -> None:
    replace(path, content)


def _in_wal_mode(path: Path) -> None:
    _executed(["PRAGMA journal_mode=WAL"], path)


def _journals(content: bytes) -> dict[str, tuple[str, bytes]]:
    """Files that SQLite would treat as changes to undo or to apply."""
    return {
        "a journal": (f"{PASSAGES_FILE}-journal", b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + content),
        "a WAL": (f"{PASSAGES_FILE}-wal", b"\x37\x7f\x06\x82" + content),
        "shared memory": (f"{PASSAGES_FILE}-shm", bytes(32768)),
    }


def _ask(whole: Path, change: Callable[[Path], object], ask: Callable[[Path], object], folder: Path) -> None:
    index = linked_copy(whole, folder / "index")
    replace(index / PASSAGES_FILE, (index / PASSAGES_FILE).read_bytes())
    change(index / PASSAGES_FILE)
    rewrite_manifest(index)
    ask(index)


def _ask_beside(whole: Path, beside: tuple[str, bytes], folder: Path) -> None:
    """A journal is not listed, so it may appear at any time; it is neither read nor written."""
    index = linked_copy(whole, folder / "index")
    (index / beside[0]).write_bytes(beside[1])
    before = {path.name: path.stat().st_mtime_ns for path in index.iterdir()}
    check_answers(index)
    assert before == {path.name: path.stat().st_mtime_ns for path in index.iterdir()}


def _read_all(index: Path) -> None:
    """Read every passage in every way; each is text."""
    check_answers(index)
    with PassageIndex.open(index, verify="size") as opened:
        passages = opened.passages(range(opened.count))
    store = PassageStore(index / PASSAGES_FILE)
    try:
        assert [passage for block in store.blocks(7) for passage in block] == passages
        store.rows_of(["id1", "id2"])
        for field in store.metadata_fields(3):
            for value in ("a", "b"):
                rows = [row for block in store.rows_with(field, value) for row in block.tolist()]
                assert rows == sorted(set(rows))
                assert all(store.fetch([row])[0].metadata[field] == value for row in rows)
    finally:
        store.close()
    for passage in passages:
        (passage.id + passage.title + passage.text + "".join(passage.metadata.values())).encode("utf-8")
