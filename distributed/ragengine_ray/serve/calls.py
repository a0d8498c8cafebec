"""Asking a replica of another deployment, which may die, or be of another version, while it is asked."""

import time
from collections.abc import Callable
from typing import Any

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from ragengine.errors import RagEngineError, UnavailableError
from ragengine.messages import one_line

_PAUSE = 0.05  # seconds before a replica is asked again


ENCODER = "QuestionEncoder"
"""The deployment that encodes questions."""


def shard_name(number: int) -> str:
    """The deployment of a shard."""
    return f"Shard{number}"


class VersionError(RagEngineError):
    """A replica serves another version of the model than it was asked for."""


def check_version(what: str, asked: str, served: str) -> None:
    """Raise :class:`VersionError` where a replica was asked for another version than its own."""
    if asked != served:
        raise VersionError(f"This {what} has the fingerprint {served[:12]}, not the {asked[:12]} asked for.")


class Peer:
    """A deployment that computes a part of the model: calls that have no effect, and so may be repeated."""

    def __init__(self, what: str, find: Callable[[], DeploymentHandle], timeout: float) -> None:
        """``find`` gets the handle; until a call has succeeded it may fail, as may the first call."""
        self._what, self._find, self._timeout = what, find, timeout
        self._handle: DeploymentHandle | None = None

    def ask(self, method: str, *arguments: Any, timeout: float | None = None) -> Any:
        """The result of a method of a replica; blocks, in a thread without an event loop.

        A replica that was lost, or has another version, is no reason to fail: another one is asked until
        ``timeout`` is over.

        Raises:
            UnavailableError: no replica answered in time.
            RagEngineError: what the replica raised.
        """
        seconds = self._timeout if timeout is None else timeout
        latest, reason = time.monotonic() + seconds, "it has no replica"
        while (left := latest - time.monotonic()) > 0:
            try:
                if self._handle is None:
                    self._handle = self._find()
                return getattr(self._handle, method).remote(*arguments).result(timeout_s=left)
            except TimeoutError:
                break
            except RayTaskError as error:
                cause = error.cause
                if not isinstance(cause, VersionError):
                    raise cause if isinstance(cause, RagEngineError) else error from None
                reason = str(cause)
            except (RayActorError, RayServeException) as error:
                reason = one_line(error)[:200]
            time.sleep(_PAUSE)
        raise UnavailableError(
            f"The {self._what} did not answer in {seconds:g} seconds ({reason}); ask again."
        )
