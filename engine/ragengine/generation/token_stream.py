"""Tokens in the making, which several threads may ask for and end."""

import threading
from collections.abc import Generator as PythonGenerator
from collections.abc import Iterator
from typing import TypeVar

from ragengine.errors import InputError
from ragengine.runtime.lifecycle import OneProcess

Token = TypeVar("Token")


class TokenStream(OneProcess, Iterator[Token]):
    """Iterates over tokens that a Python generator computes; only the process that began it can use it.

    Each token goes to one of the threads that iterate, one after the other.  :meth:`close` may come from any
    thread, a signal handler included: a token that is being computed then is the last.
    """

    def __init__(self, tokens: PythonGenerator[Token, None, None]) -> None:
        super().__init__()
        self._tokens = tokens
        self._turn = threading.Lock()
        self._computing: int | None = None  # the thread whose turn it is
        self._closed = False

    def __next__(self) -> Token:
        self._check_process()  # before the lock, which another thread may hold that a fork does not have
        if self._closed:
            self.close()
            raise StopIteration
        if self._computing == threading.get_ident():
            raise InputError(
                f"This {type(self).__name__} is computing a token in this very thread; ask for the next one "
                "when it is there."
            )
        try:
            with self._turn:
                try:
                    self._computing = threading.get_ident()
                    return next(self._tokens)
                finally:
                    self._computing = None
        finally:
            if self._closed:  # asked again after the turn: whoever closed meanwhile could not
                self.close()

    def close(self) -> None:
        """Compute no more tokens, and free their memory; the iteration ends."""
        self._closed = True
        if not self._in_fork and self._turn.acquire(blocking=False):
            try:
                self._tokens.close()
            finally:
                self._turn.release()
