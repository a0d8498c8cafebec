"""Finished results by what was asked."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any


def is_whole(result: Any) -> bool:
    """Whether all shards of the index answered; a result without some is not for later."""
    found = result[0] if isinstance(result, tuple) and result else result
    return not getattr(found, "missing_shards", ())


class AnswerCache:
    """The ``size`` results that were asked for last.  Safe to use from several threads.

    A key names question, options and the versions of bundle and index, so that no result outlives a swap;
    :meth:`clear` frees those that no key names any more.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._results: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable | None) -> Any:
        """The result, or None where there is none."""
        with self._lock:
            if key is None or key not in self._results:
                return None
            self._results.move_to_end(key)
            return self._results[key]

    def put(self, key: Hashable | None, result: Any) -> None:
        """Keep a result; the one that was asked for least recently makes room."""
        if key is None or not self._size:
            return
        with self._lock:
            self._results[key] = result
            self._results.move_to_end(key)
            while len(self._results) > self._size:
                self._results.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._results.clear()
