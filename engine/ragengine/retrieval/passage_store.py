"""The texts of an index: one SQLite file, written once, then read by row from any thread."""

import contextlib
import errno
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ragengine.arrays import RowArray
from ragengine.corpus.passage import Passage
from ragengine.errors import ClosedError, IndexFolderError
from ragengine.messages import one_line
from ragengine.runtime.lifecycle import leak_in_forks

Records: TypeAlias = list[tuple[Any, ...]]

BLOCK_CHARACTERS = 1 << 24
"""Characters after which a list of passages ends: a text of one character takes 1 to 4 bytes of memory."""

_PASSAGES = (
    "CREATE TABLE passages "
    "(row INTEGER PRIMARY KEY, id TEXT NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL)"
)
# Each passage's fields follow each other, and `metadata_values` has all rows of a field's value, ascending.
_METADATA = (
    "CREATE TABLE metadata (row INTEGER NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL, "
    "PRIMARY KEY (row, field)) WITHOUT ROWID"
)
_METADATA_VALUES = "CREATE INDEX metadata_values ON metadata (field, value)"
_OLDEST_SCHEMA = [("table", "passages", _PASSAGES)]
"""Of index format 1, which has no metadata."""
_SCHEMA = [
    ("table", "metadata", _METADATA),
    ("index", "metadata_values", _METADATA_VALUES),
    *_OLDEST_SCHEMA,
]
"""By name."""
_SETTINGS = "PRAGMA page_size=4096; PRAGMA encoding='UTF-8'; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF"
_ERRNO = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_CANTOPEN: errno.EACCES}
"""The errno of SQLite's error codes; the others are errors of input and output."""
_IDS_TOGETHER = 30_000
"""How many ids one query looks for; SQLite takes up to 32,766 values."""

_ROWS_TOGETHER = 65536
"""How many rows one query lists."""


def write_passages(path: Path, passages: Iterable[Passage]) -> int:
    """Write passages to a new SQLite file as rows 0, 1, ... and return their count.

    The bytes depend on nothing but the passages and the SQLite version.  There is no journal: the file is
    part of a folder that is complete or absent.  Raises :class:`OSError` where it cannot be written.
    """
    with _written(path) as connection:
        connection.execute(_PASSAGES)
        connection.execute(_METADATA)

        def records() -> Iterator[tuple[Any, ...]]:
            for row, passage in enumerate(passages):
                if passage.metadata:
                    fields = ((row, name, value) for name, value in sorted(passage.metadata.items()))
                    connection.executemany("INSERT INTO metadata VALUES (?, ?, ?)", fields)
                yield row, passage.id, passage.title, passage.text

        connection.executemany("INSERT INTO passages VALUES (?, ?, ?, ?)", records())
        connection.execute(_METADATA_VALUES)  # sorted at once, which is faster than entry by entry
        (count,) = connection.execute("SELECT count(*) FROM passages").fetchone()
    return int(count)


def rename_passages(path: Path, ids: Iterable[tuple[int, str]]) -> None:
    """Give rows of a file of :func:`write_passages` other ids; raises as that does."""
    with _written(path) as connection:
        renamed = ((id, row) for row, id in ids)
        connection.executemany("UPDATE passages SET id = ? WHERE row = ?", renamed)


@contextlib.contextmanager
def _written(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose changes are written when the block ends well; raises :class:`OSError`."""
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.executescript(_SETTINGS)
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")
    except sqlite3.Error as reason:
        number = _ERRNO.get(getattr(reason, "sqlite_errorcode", 0), errno.EIO)
        raise OSError(number, str(reason), str(path)) from reason


def _all(cursor: sqlite3.Cursor) -> Records:
    return cursor.fetchall()


def _up_to_characters(cursor: sqlite3.Cursor) -> Records:
    """The first records of a cursor, one row at a time."""
    records: Records = []
    characters = 0
    for record in cursor:
        records.append(record)
        characters += sum(len(value) for value in record if isinstance(value, str))
        if characters >= BLOCK_CHARACTERS:
            break
    cursor.close()
    return records


def _whole_rows(cursor: sqlite3.Cursor) -> Records:
    """The first records of a cursor, all of each row number that they begin with."""
    records: Records = []
    characters = 0
    for record in cursor:
        if characters >= BLOCK_CHARACTERS and record[0] != records[-1][0]:
            break
        records.append(record)
        characters += sum(len(value) for value in record if isinstance(value, str))
    cursor.close()
    return records


def _characters(metadata: Iterable[Mapping[str, str]]) -> int:
    return sum(len(name) + len(value) for fields in metadata for name, value in fields.items())


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


class PassageStore:
    """Read-only random access to the passages of an index.  Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Open a file of :func:`write_passages`; raises :class:`IndexFolderError` if it is not one."""
        self.path = path
        # One connection behind a lock: a fetch takes microseconds, and a connection a thread would leak.
        self._lock = threading.Lock()
        self._closed = False
        leak_in_forks(self)  # SQLite's own lock may be held by a thread that a fork lacks
        try:
            # immutable: no locks and no journal files, so that an index works on a read-only disk.
            uri = path.absolute().as_uri() + "?mode=ro&immutable=1"
            self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        except sqlite3.Error as reason:
            raise IndexFolderError(
                f"{path} cannot be opened: {one_line(reason)}; copy or build the index again."
            ) from reason
        # A connection that is collected without this warns since Python 3.13.
        weakref.finalize(self, self._connection.close).atexit = False
        try:
            self._has_metadata = self._check_schema() and bool(self._query("SELECT 1 FROM metadata LIMIT 1"))
            # Rows are 0 to count-1, so the last one gives the count.  One SELECT of both ends would read
            # every row between them.
            ((first,),) = self._query("SELECT min(row) FROM passages")
            ((last,),) = self._query("SELECT max(row) FROM passages")
        except IndexFolderError:
            self.close()
            raise
        self.count: int = 0 if last is None else last + 1
        if first not in (0, None):
            self.close()
            raise IndexFolderError(f"{path} begins with row {first} instead of 0; build the index again.")

    def _check_schema(self) -> bool:
        """Check that the file holds the tables of passages and no view, trigger or other code.

        Whether it has a table of metadata, which index format 1 has not.
        """
        self._query("PRAGMA trusted_schema=OFF")
        self._query("PRAGMA cell_size_check=ON")
        found = self._query("SELECT type, name, sql FROM sqlite_master ORDER BY name")
        if found not in (_SCHEMA, _OLDEST_SCHEMA):
            raise IndexFolderError(
                f"{self.path} holds {found!a:.200} instead of the table of passages; build the index again."
            )
        return found == _SCHEMA

    def fetch(self, rows: Iterable[int]) -> list[Passage]:
        """The passages of ``rows``, in that order; a row may be asked for several times."""
        found = []
        for row in rows:
            records = self._query("SELECT id, title, text FROM passages WHERE row = ?", int(row))
            if not records:
                raise IndexFolderError(f"{self.path} has no row {row}; its rows are 0 to {self.count - 1}.")
            found.append(self._passage(records[0], self._metadata(int(row), int(row) + 1).get(int(row), {})))
        return found

    def blocks(self, size: int, first: int = 0) -> Iterator[list[Passage]]:
        """The passages from row ``first`` on, in lists of ``size`` (the last may be shorter).

        Of long passages a list has fewer: it ends with the one whose text, or whose metadata, makes it
        :data:`BLOCK_CHARACTERS` long.
        """
        select = "SELECT row, id, title, text FROM passages WHERE row >= ? AND row < ? ORDER BY row"
        start = first
        while start < self.count:
            records = self._query(select, start, start + size, read=_up_to_characters)
            end = records[-1][0] + 1 if records else start + size
            metadata = self._metadata(start, end)
            if len(metadata) < end - start and _characters(metadata.values()) >= BLOCK_CHARACTERS:
                end = max(metadata) + 1  # the rows behind it may have metadata that was not read
            yield [
                self._passage(record[1:], metadata.get(record[0], {}))
                for record in records
                if record[0] < end
            ]
            start = end

    def rows_of(self, ids: Iterable[str]) -> dict[str, list[int]]:
        """The rows of each of ``ids``, ascending; an id that no passage has is left out.  Reads every row."""
        wanted = [id for id in ids if _is_unicode(id)]  # SQLite could not encode another: no passage has it
        found: dict[str, list[int]] = {}
        for start in range(0, len(wanted), _IDS_TOGETHER):
            part = wanted[start : start + _IDS_TOGETHER]
            places = ", ".join("?" * len(part))
            select = f"SELECT id, row FROM passages WHERE id IN ({places}) ORDER BY row"
            for id, row in self._query(select, *part):
                found.setdefault(id, []).append(row)
        return found

    def rows_with(self, field: str, value: str) -> Iterator[RowArray]:
        """The rows of the passages whose metadata has ``value`` for ``field``: ascending, in blocks."""
        if not self._has_metadata or not (_is_unicode(field) and _is_unicode(value)):
            return
        select = "SELECT row FROM metadata WHERE field = ? AND value = ? AND row > ? ORDER BY row LIMIT ?"
        last, full = -1, True
        while full:  # one query of all would keep others from reading for long
            found = self._query(select, field, value, last, _ROWS_TOGETHER)
            rows = self._rows(found)
            full = len(rows) == _ROWS_TOGETHER
            if len(rows):
                yield rows
                last = int(rows[-1])

    def metadata_fields(self, most: int) -> list[str]:
        """The names of the fields that passages have, in order; the first ``most``."""
        names: list[str] = []
        select = "SELECT field FROM metadata WHERE field > ? ORDER BY field LIMIT 1"
        while self._has_metadata and len(names) < most:
            found = self._query(select, names[-1] if names else "")
            if not found:
                break
            names.append(self._texts(found[0])[0])
        return names

    def count_all(self) -> int:
        """The number of rows by reading every one: equal to ``count`` unless the file is damaged."""
        ((count,),) = self._query("SELECT count(*) FROM passages WHERE length(text) >= 0")
        return int(count)

    def check_metadata(self) -> None:
        """Check that the rows of each value are those that have it, by reading everything.

        Raises :class:`IndexFolderError` where the file is damaged.
        """
        if self._has_metadata and (found := self._query("PRAGMA integrity_check(1)")) != [("ok",)]:
            raise IndexFolderError(f"{self.path} is damaged: {one_line(found[0][0])}; build the index again.")

    def close(self) -> None:
        """Close the file; may be called again."""
        with self._lock:
            self._closed = True
            self._connection.close()

    def _metadata(self, first: int, end: int) -> dict[int, dict[str, str]]:
        """The metadata of the passages in rows ``first`` to ``end`` - 1 that have some.

        It ends early, behind the passage that makes it :data:`BLOCK_CHARACTERS` long.
        """
        metadata: dict[int, dict[str, str]] = {}
        if self._has_metadata:
            select = "SELECT row, field, value FROM metadata WHERE row >= ? AND row < ? ORDER BY row, field"
            for row, *pair in self._query(select, first, end, read=_whole_rows):
                field, value = self._texts(pair)
                metadata.setdefault(row, {})[field] = value
        return metadata

    def _passage(self, record: Sequence[Any], metadata: Mapping[str, str]) -> Passage:
        id, title, text = self._texts(record)
        return Passage(id, title, text, metadata=metadata)

    def _texts(self, record: Sequence[Any]) -> Sequence[str]:
        """A record that must be texts; SQLite lets a column hold any type, whatever its table says."""
        if not all(isinstance(value, str) for value in record):
            raise IndexFolderError(
                f"{self.path} has a passage that is not text: {record!a:.120}; build the index again."
            )
        return record

    def _rows(self, records: Records) -> RowArray:
        """Records of one row number each, which must be those of passages."""
        for (row,) in records:
            if type(row) is not int or not 0 <= row < self.count:
                raise IndexFolderError(
                    f"{self.path} has metadata of row {row!a:.40}; its rows are 0 to {self.count - 1}; "
                    "build the index again."
                )
        return np.array([row for (row,) in records], np.int64)

    def _query(
        self, statement: str, *values: int | str, read: Callable[[sqlite3.Cursor], Records] = _all
    ) -> Records:
        with self._lock:
            if self._closed:
                raise ClosedError(f"{self.path} is closed; open the index again.")
            try:
                return read(self._connection.execute(statement, values))
            except (sqlite3.Error, OverflowError, UnicodeDecodeError) as reason:  # also of its own messages
                raise IndexFolderError(
                    f"{self.path} cannot be read: {one_line(reason)}; build the index again."
                ) from reason
