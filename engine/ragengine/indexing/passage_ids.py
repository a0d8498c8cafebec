"""The ids of an index's passages: every passage has one of its own.

An id that was given stays as it is.  A passage without one gets its row number; where another passage has
that as its id, it gets the first number from the number of passages on that is free.  Passages that are in
the index already keep their ids, whether given or numbers.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import RowArray
from ragengine.corpus.passage import Passage
from ragengine.errors import PassagesError
from ragengine.retrieval.passage_store import PassageStore, rename_passages

_SHOWN = 3


class PassageIds:
    """Notes the ids of passages while they are written, and mends or refuses what is there twice.

    It holds 9 bytes a passage: ids are compared by 64-bit hashes, and read again before any is refused.
    """

    def __init__(
        self,
        kept: int = 0,
        index: Path | None = None,
        *,
        before: Iterable[Passage] = (),
        fetch: Callable[[int], Passage] | None = None,
    ) -> None:
        """The first ``kept`` passages are those of ``index``; their ids stay, twice or not.

        ``before`` are passages that come before those that are written, in other files: ``fetch`` gives the
        one in a row again.
        """
        self._kept, self._index, self._fetch = kept, index, fetch
        self._hashes, self._numbered = array("q"), bytearray()
        for _ in self.noted(before):
            pass
        self._first = len(self._hashes)
        self.moved: dict[int, str] = {}
        """What :meth:`settle` found for passages in other files: the number that a row gets."""

    def noted(self, passages: Iterable[Passage]) -> Iterator[Passage]:
        """``passages``, noted as they pass."""
        for passage in passages:
            self._hashes.append(hash(passage.id))
            self._numbered.append(passage.numbered)
            yield passage

    @property
    def numbered(self) -> NDArray[np.uint8]:
        """1 for each passage that is written whose id was not given, [N]."""
        return self._flags[self._first :]

    @property
    def _flags(self) -> NDArray[np.uint8]:
        return np.frombuffer(self._numbered, np.uint8)

    def settle(self, path: Path | None) -> None:
        """Give numbers that are taken up, in the passages written at ``path``; None where none are.

        Raises :class:`PassagesError` where an id that was given is there already.
        """
        renamed = dict(self._renamed(path))
        self.moved = {row: id for row, id in renamed.items() if row < self._first}
        if path is not None and len(renamed) > len(self.moved):
            rename_passages(
                path, ((row - self._first, id) for row, id in renamed.items() if row >= self._first)
            )

    def _renamed(self, path: Path | None) -> Iterator[tuple[int, str]]:
        """The rows whose number is taken, and the one they get."""
        hashes = np.frombuffer(self._hashes, np.int64)
        movable = self._flags.astype(bool)
        movable[: self._kept] = False
        fixed = np.sort(hashes[~movable])
        twice = fixed[1:][fixed[1:] == fixed[:-1]]
        if len(twice):
            self._refuse_repeated(path, hashes, ~movable, twice)
        rows = np.flatnonzero(movable)
        taken = _is_in(hashes[rows], fixed)
        _, first = np.unique(hashes[rows], return_index=True)
        taken[np.setdiff1d(np.arange(len(rows)), first)] = True
        if taken.any():
            free = _free_numbers(len(hashes), np.sort(hashes))
            yield from ((row, next(free)) for row in rows[taken].tolist())

    def _refuse_repeated(
        self,
        path: Path | None,
        hashes: NDArray[np.int64],
        fixed: NDArray[np.bool_],
        twice: NDArray[np.int64],
    ) -> None:
        """Raise :class:`PassagesError` where an id with one of the hashes ``twice`` was given once more."""
        repeated: dict[str, int] = {}  # id -> the first row that has it
        suspects = fixed & _is_in(hashes, twice)
        suspects[: self._kept] = False
        rows = np.flatnonzero(suspects)
        _, first = np.unique(hashes[rows], return_index=True)
        with self._reading(path) as fetch:
            for row in rows[np.sort(first)].tolist():
                repeated |= self._repeated(fetch, np.flatnonzero(fixed & (hashes == hashes[row])))
                if len(repeated) > _SHOWN:
                    break
        if repeated:
            raise PassagesError(self._refusal(repeated))

    @contextmanager
    def _reading(self, path: Path | None) -> Iterator[Callable[[int], Passage]]:
        """What gives the passage in a row, of those that were written at ``path`` and those before."""
        before = self._fetch
        if path is None:
            assert before is not None  # then there are only those before
            yield before
            return
        with closing(PassageStore(path)) as store:

            def fetch(row: int) -> Passage:
                if row < self._first and before is not None:
                    return before(row)
                return store.fetch([row - self._first])[0]

            yield fetch

    def _repeated(self, fetch: Callable[[int], Passage], rows: RowArray) -> dict[str, int]:
        """The first id that was given once more in ``rows``, which have one hash, with its first row."""
        first: dict[str, int] = {}
        for row in rows.tolist():
            id = fetch(row).id
            if first.setdefault(id, row) != row and row >= self._kept:
                return {id: first[id]}
        return {}

    def _refusal(self, repeated: dict[str, int]) -> str:
        shown = shown_ids(list(repeated))
        old = [row for row in repeated.values() if row < self._kept]
        if not old:
            return f"Several passages have the id {shown}; give each passage an id of its own, or none an id."
        remedy = "replace them with ragengine index upsert, or give the new ones other ids."
        if self._flags[old].any():
            remedy = (
                "these were numbered, as they came without ids: give the new ones other ids, or, to merge "
                "two indexes, name the other one first."
            )
        return f"{self._index} has passages with the id {shown} already; {remedy}"


def shown_ids(ids: list[str]) -> str:
    """The first of ``ids`` as a message names them."""
    shown = ", ".join(repr(id) for id in ids[:_SHOWN])
    return shown if len(ids) <= _SHOWN else f"{shown} and others"


def _free_numbers(first: int, taken: NDArray[np.int64]) -> Iterator[str]:
    """Whole numbers from ``first`` on whose hashes are not in ``taken``, which is sorted."""
    for number in map(str, count(first)):
        place = np.searchsorted(taken, hash(number))
        if place == len(taken) or taken[place] != hash(number):
            yield number


def _is_in(values: NDArray[np.int64], found: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each of ``values`` is in ``found``, which is sorted."""
    if not len(found):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(found, values), len(found) - 1)
    return np.asarray(found[places] == values)
