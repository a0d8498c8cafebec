"""The replicas of a shard: which is asked first, when the next one is, and whose answer counts."""

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ragengine.messages import one_line
from ragengine.retrieval.sharding.remote.addresses import Address
from ragengine.retrieval.sharding.remote.connection import BadResponse, Connections, Response
from ragengine.retrieval.sharding.remote.messages import DEADLINE_HEADER
from ragengine.retrieval.sharding.remote.options import RemoteOptions

T = TypeVar("T")
Request = tuple[str, str, dict[str, str], bytes]
"""Method, path, headers and body."""


class Failed(Exception):
    """No replica answered; the text says for each address why, and ends a sentence.

    refused  whether each of them was :class:`Refused`
    """

    def __init__(self, text: str, *, refused: bool) -> None:
        super().__init__(text)
        self.refused = refused


class Refused(Exception):
    """What a replica answered cannot be used; the text ends a sentence."""


@dataclass(eq=False)
class _Replica:
    """A server of the shard, and until when it is asked after the others."""

    address: Address
    connections: Connections
    rests_until: float = -math.inf


class Replicas:
    """The servers of one shard.  For one event loop.

    Those that answer take turns in being asked first.  One that failed, or answered later than one that was
    asked after it, is asked after the others for a while.
    """

    def __init__(self, addresses: Sequence[Address], options: RemoteOptions, longest: int) -> None:
        """Raises :class:`InputError` where the certificates of ``options`` cannot be read."""
        tls = options.tls_context() if any(address.secure for address in addresses) else None
        self._replicas = [_Replica(a, Connections(a, longest=longest, tls=tls)) for a in addresses]
        self._options = options
        self._turns = itertools.count()

    async def ask(self, request: Request, read: Callable[[Response], T]) -> T:
        """The first answer that ``read`` accepts; requests to the others are then cancelled.

        Args:
            request: what is asked, the same of all.
            read: makes the result of a response, or raises :class:`Refused`: another replica may do better.

        Raises:
            Failed: no replica answered in time with something that can be used.
        """
        waiting = iter(self._in_order())
        running: dict[asyncio.Task[T], _Replica] = {}
        failures: dict[str, str] = {}
        refused = True
        end = time.monotonic() + self._options.timeout
        try:
            while True:
                if (replica := next(waiting, None)) is not None:
                    running[asyncio.ensure_future(self._ask_one(replica, request, read, end))] = replica
                elif not running:
                    break
                done = await self._some(running, end, hedging=replica is not None)
                for task in done:
                    asked = running[task]
                    if (error := task.exception()) is None:
                        self._overtaken(running, task)
                        return task.result()
                    del running[task]
                    asked.rests_until = time.monotonic() + self._options.rest
                    failures[asked.address.text] = _reason(error)
                    refused = refused and isinstance(error, Refused)
                if time.monotonic() >= end:
                    break
            silent = (*running.values(), *waiting)
            for replica in silent:
                failures[replica.address.text] = f"no answer within {self._options.timeout:g} s"
                replica.rests_until = time.monotonic() + self._options.rest
            text = "; ".join(f"{address}: {reason}" for address, reason in failures.items())
            raise Failed(text, refused=refused and not silent)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def close(self) -> None:
        """Close all connections."""
        for replica in self._replicas:
            await replica.connections.close()

    def _in_order(self) -> Iterator[_Replica]:
        """Those that are well, each time beginning with another, then those that rest, the longest first."""
        first, now = next(self._turns), time.monotonic()
        turned = [self._replicas[(first + n) % len(self._replicas)] for n in range(len(self._replicas))]
        return iter(sorted(turned, key=lambda replica: max(replica.rests_until - now, 0.0)))

    async def _ask_one(
        self, replica: _Replica, request: Request, read: Callable[[Response], T], end: float
    ) -> T:
        method, path, headers, body = request
        left = max(1, math.ceil((end - time.monotonic()) * 1000))
        told = {**headers, DEADLINE_HEADER: str(left)}
        return read(await replica.connections.request(method, path, told, body))

    async def _some(
        self, running: dict[asyncio.Task[T], _Replica], end: float, *, hedging: bool
    ) -> set[asyncio.Task[T]]:
        """Those that are done: when one is, or it is time to ask another, or the time is over."""
        left = max(0.0, end - time.monotonic())
        wait = min(left, self._options.hedge_after) if hedging else left
        done, _ = await asyncio.wait(running, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        return done

    def _overtaken(self, running: dict[asyncio.Task[T], _Replica], winner: asyncio.Task[T]) -> None:
        """Let those rest that were asked before the winner and have not answered."""
        for task, replica in running.items():
            if task is winner:
                return
            if not task.done():
                replica.rests_until = time.monotonic() + self._options.rest


def _reason(error: BaseException) -> str:
    if isinstance(error, BadResponse | Refused):
        return str(error)
    if isinstance(error, OSError):
        return one_line(error) or type(error).__name__
    return f"{type(error).__name__}: {one_line(error)}"
