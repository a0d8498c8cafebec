"""The processes of a run, which `torchrun`, `accelerate launch` or Ray Train has started; one without them.

Each process works on its part; what is written is written by the first one.  Where a step can fail, all
processes take it by :func:`first` or :func:`together`, so that an error in one ends all of them.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from ragengine.errors import ProcessError, RagEngineError

T = TypeVar("T")
# The first process may build an index for hours while the others wait; a dead one is noticed without it.
_LONGEST_WAIT = timedelta(days=7)
_GRACE_SECONDS = 5.0


class OtherProcessError(ProcessError):
    """Another process of the run has failed, and says why."""


def count() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this process is the one that writes and reports."""
    return rank() == 0


def were_restarted() -> bool:
    """Whether torchrun has started the processes again after one was lost (``--max-restarts``)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Connect the processes that a launcher started, until the end of the block.

    Nothing happens in a process alone, and in one that is connected already.

    Raises :class:`OtherProcessError` where the connection to another one is lost.
    """
    owned = not distributed.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if owned:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=_LONGEST_WAIT)
    try:
        yield
    except RuntimeError as reason:
        if count() == 1 or not _is_lost_connection(reason):
            raise
        raise OtherProcessError(
            f"Process {rank()} of {count()} lost the connection to another one, which has ended; start the "
            "command again to go on."
        ) from reason
    finally:
        if owned:
            distributed.destroy_process_group()


@contextlib.contextmanager
def one_message() -> Iterator[None]:
    """Let the process that failed be the only one that says so on the command line.

    Where all processes fail alike it is the first one: its launcher ends the others while they wait here.
    """
    if count() == 1:
        yield
        return
    try:
        yield
    except OtherProcessError:
        _await_end()
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(1) from None  # the launcher was told, and tells
    except RagEngineError as error:
        if is_first():
            raise
        _await_end()
        raise _told_by(rank(), error) from error


def first(function: Callable[[], T]) -> T:
    """What ``function`` returns in the first process, which alone calls it, in all of them.

    Raises, where it raises a :class:`RagEngineError`, that in the first and :class:`OtherProcessError` in the
    others.
    """
    result: T | None = None
    failed: RagEngineError | None = None
    if is_first():
        try:
            result = function()
        except RagEngineError as error:
            failed = error
    if count() == 1:
        if failed is not None:
            raise failed
    else:
        said: list[Any] = [(result, failed)]
        distributed.broadcast_object_list(said)
        result, told = said[0]
        _raise_agreed([told], failed)
    return result  # type: ignore[return-value]  # None is what the function returned


def together(function: Callable[[], T]) -> T:
    """What ``function`` returns in this process, once it has returned in all of them.

    Raises, where it raises a :class:`RagEngineError` in any, that in the first process and
    :class:`OtherProcessError` in the others.
    """
    result: T | None = None
    failed: RagEngineError | None = None
    try:
        result = function()
    except RagEngineError as error:
        failed = error
    _raise_agreed(_all(failed), failed)
    return result  # type: ignore[return-value]  # as in `first`


def share(values: Sequence[T]) -> Sequence[T]:
    """The part of ``values``, which all processes have, that this one works on: every Nth of N processes."""
    return values[rank() :: count()]


def rejoin(own: Sequence[T]) -> list[T]:
    """The results of all processes for their :func:`share`, in the order of the whole."""
    parts: list[Sequence[T]] = _all(own)
    longest = max(map(len, parts))
    return [part[place] for place in range(longest) for part in parts if place < len(part)]


def stack(own: T) -> list[T]:
    """What each process has, in their order."""
    return _all(own)


def worker_threads() -> int | None:
    """Threads for native code of one of several processes: as many as torch has; None, all, for one alone."""
    return None if count() == 1 else torch.get_num_threads()


class _GatherRows(torch.autograd.Function):
    """Rows of every process, interleaved; each process's gradient reaches its own rows.

    All processes compute the same loss of the whole.  Each then has the share of its gradient that comes
    through its own rows, and DistributedDataParallel takes the mean of the shares: times their number, it is
    their sum, which is the gradient.
    """

    @staticmethod
    def forward(ctx: Any, own: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(own) for _ in range(count())]
        distributed.all_gather(parts, own.contiguous())
        return torch.stack(parts, dim=1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0][rank() :: count()] * count()


def gather_rows(own: torch.Tensor, rows: int) -> torch.Tensor:
    """The vectors [``rows``, E] of a batch, of which each process has made its :func:`padded_share`.

    The loss must be the same in all processes, and the model within DistributedDataParallel.
    """
    if count() == 1:
        return own
    gathered: torch.Tensor = _GatherRows.apply(own)  # type: ignore[no-untyped-call]  # torch has no types for it
    return gathered[:rows]


def gather_each(own: torch.Tensor) -> list[torch.Tensor]:
    """The rows [N, E] of every process, which may be of different numbers; gradients as :func:`gather_rows`.

    The loss must be the same in all processes, and the model within DistributedDataParallel.
    """
    lengths: list[int] = _all(len(own))
    filling = own.new_zeros(max(lengths) - len(own), *own.shape[1:])
    rows = gather_rows(torch.cat([own, filling]), max(lengths) * count())
    return [rows[number :: count()][:length] for number, length in enumerate(lengths)]


def padded_share(rows: int) -> list[int]:
    """The places of ``rows`` that this process encodes: as many in each, so that the last may come again."""
    each = -(-rows // count())
    return [min(place * count() + rank(), rows - 1) for place in range(each)]


def _await_end() -> None:
    """Give the launcher the time to end this process."""
    try:
        time.sleep(_GRACE_SECONDS)
    except KeyboardInterrupt:
        raise SystemExit(1) from None


def _all(own: T) -> list[T]:
    if count() == 1:
        return [own]
    found: list[Any] = [None] * count()
    distributed.all_gather_object(found, own)
    return found


def _raise_agreed(errors: Sequence[RagEngineError | None], own: RagEngineError | None) -> None:
    """Raise if there is an error in any process: in the first process the first one, in its own words."""
    number, error = next(((at, one) for at, one in enumerate(errors) if one is not None), (0, None))
    if error is None:
        return
    if not is_first():
        raise OtherProcessError(f"Process {rank()} of {count()} ends because another one failed: {error}")
    raise own if own is not None and number == 0 else _told_by(number, error)


def _told_by(number: int, error: RagEngineError) -> RagEngineError:
    return type(error)(f"process {number} of {count()}: {error}")


def _is_lost_connection(reason: RuntimeError) -> bool:
    said = str(reason)
    return isinstance(reason, distributed.DistError) or "Connection" in said or "gloo" in said
