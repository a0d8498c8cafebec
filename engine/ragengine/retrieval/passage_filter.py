"""Which passages a search may find: those whose metadata has certain values."""

import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import RowArray
from ragengine.corpus.metadata import metadata_text
from ragengine.errors import InputError
from ragengine.messages import short_repr
from ragengine.retrieval.faiss_api import import_faiss
from ragengine.retrieval.passage_store import PassageStore

Value: TypeAlias = str | int | float | bool
_MOST_KEPT: Final = 16
"""Filters whose rows are remembered for an index: each takes N / 8 bytes."""
FIELDS_SHOWN: Final = 8


@dataclass(frozen=True)
class PassageFilter:
    """A checked :data:`Filter`: the fields in order, each with its values in order."""

    fields: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def of(cls, given: Any) -> "PassageFilter | None":
        """Check a filter of a caller; None where it leaves nothing out: None, and one without fields.

        Raises:
            InputError: it is no mapping of field names to values.
        """
        if given is None or isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise InputError(
                f"filter is {short_repr(given)}; it must be a mapping of field names to values, "
                'such as {"owner": "data"}.'
            )
        fields = []
        for name, value in given.items():
            if not isinstance(name, str) or not name:
                raise InputError(f"filter has the field {short_repr(name)}; a field's name is a text.")
            several = isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes)
            values = list(value) if several else [value]
            if not values:
                raise InputError(f"filter has no value for {short_repr(name)}; give one, or leave it out.")
            fields.append((name, tuple(sorted({_checked_value(name, one) for one in values}))))
        return cls(tuple(sorted(fields))) if fields else None

    def to_dict(self) -> dict[str, list[str]]:
        """The filter as JSON values."""
        return {name: list(values) for name, values in self.fields}

    def __str__(self) -> str:
        """As messages show it: ``owner='data' and year='2024' or '2025'``; what is long is cut."""
        shown = (
            f"{short_repr(name)[1:-1]}={_first(map(short_repr, values), len(values), ' or ')}"
            for name, values in self.fields
        )
        return _first(shown, len(self.fields), " and ")


Filter: TypeAlias = Mapping[str, Value | Sequence[Value]] | PassageFilter
"""Field names and the values that they may have: ``{"owner": "data", "year": [2024, 2025]}``.

A passage matches if each field has one of its values.  A number or a bool is compared as metadata holds it,
as the text that JSON writes.
"""


@dataclass(frozen=True, eq=False)
class MatchingRows:
    """The rows of N passages that a filter lets through: bit ``row`` of ``bits``, uint8 [⌈N / 8⌉]."""

    bits: NDArray[np.uint8]
    count: int

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_]) -> "MatchingRows":
        """The rows where ``mask`` [N] is true."""
        return cls(np.packbits(mask, bitorder="little"), int(np.count_nonzero(mask)))

    @property
    def rows(self) -> RowArray:
        """The rows themselves, ascending, int64 [count]."""
        return np.flatnonzero(np.unpackbits(self.bits, bitorder="little"))

    @cached_property
    def selector(self) -> Any:
        """The same for FAISS; it reads ``bits``, which live as long."""
        return import_faiss().IDSelectorBitmap(self.bits)


class PassageFilters:
    """Finds the rows that match filters, and remembers them for a while.  Safe to use from many threads."""

    def __init__(self, store: PassageStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: OrderedDict[PassageFilter, MatchingRows] = OrderedDict()

    def matching(self, wanted: PassageFilter) -> MatchingRows:
        """The rows of the passages that match.

        Raises:
            InputError: no passage does.
        """
        found = self.found(wanted)
        if not found.count:
            raise nothing_matches(wanted, self.fields(FIELDS_SHOWN + 1))
        return found

    def found(self, wanted: PassageFilter) -> MatchingRows:
        """The rows of the passages that match, of which there may be none."""
        with self._lock:
            found = self._known.get(wanted)
            if found is not None:
                self._known.move_to_end(wanted)
                return found
        found = MatchingRows.of_mask(self._mask(wanted))
        with self._lock:
            self._known[wanted] = found
            while len(self._known) > _MOST_KEPT:
                self._known.popitem(last=False)
        return found

    def fields(self, most: int) -> list[str]:
        """The first ``most`` names of metadata that passages have, in order."""
        return self._store.metadata_fields(most)

    def _mask(self, wanted: PassageFilter) -> NDArray[np.bool_]:
        """Whether each passage matches, [N]."""
        mask = np.ones(self._store.count, bool)
        for field, values in wanted.fields:
            having = np.zeros(self._store.count, bool)
            for value in values:
                for rows in self._store.rows_with(field, value):
                    having[rows] = True
            mask &= having
        return mask


def nothing_matches(wanted: PassageFilter, fields: Sequence[str]) -> InputError:
    """The error for a filter that no passage matches, among passages whose metadata has ``fields``."""
    there = ", ".join(short_repr(name) for name in fields[:FIELDS_SHOWN])
    more = " and others" if len(fields) > FIELDS_SHOWN else ""
    has = f"passages have the fields {there}{more}" if fields else "no passage has metadata"
    return InputError(f"No passage matches the filter {wanted}; {has}.")


def _first(shown: Iterable[str], count: int, word: str) -> str:
    """The first of ``count`` texts, joined by ``word``, and how many more there are."""
    more = [f"{count - FIELDS_SHOWN} more"] if count > FIELDS_SHOWN else []
    return word.join([*itertools.islice(shown, FIELDS_SHOWN), *more])


def _checked_value(name: str, value: Any) -> str:
    text = metadata_text(value) if isinstance(value, str | int | float) else None
    if text is None:
        raise InputError(
            f"filter has the value {short_repr(value)} for {short_repr(name)}; a value is a text, a number, "
            "a bool, or a list of them."
        )
    return text
