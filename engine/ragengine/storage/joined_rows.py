"""Several arrays that are read as the rows of one, without a copy of them all."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray


def joined_rows(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The rows of ``parts`` [K, E], one after another: for what reads slices and lists of rows alone.

    It is typed as the array that it stands for.  What is read is a copy.
    """
    return parts[0] if len(parts) == 1 else cast(NDArray[Any], _JoinedRows(parts))


class _JoinedRows:
    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        self._parts = parts
        self._first = np.cumsum([0, *map(len, parts)])
        self.dtype = parts[0].dtype
        self.shape = (int(self._first[-1]), *parts[0].shape[1:])
        self.size = sum(part.size for part in parts)

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, key: slice | NDArray[np.int64]) -> NDArray[Any]:
        rows = np.arange(*key.indices(len(self))) if isinstance(key, slice) else np.asarray(key)
        owners = np.searchsorted(self._first, rows, side="right") - 1
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for number in np.unique(owners).tolist():
            places = owners == number
            found[places] = self._parts[number][rows[places] - self._first[number]]
        return found
