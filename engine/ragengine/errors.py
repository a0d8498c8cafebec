"""Every error that ragengine raises on purpose.

Each message is one sentence that names the value, the limit and the remedy.  The command line prints
it as it is and exits with 1; an application can catch :class:`RagEngineError` for all of them.
"""

from ragengine.messages import shown


class RagEngineError(Exception):
    """Base class of all errors that ragengine raises on purpose."""

    def __str__(self) -> str:
        """The message in one line that is safe to print: it may quote names and texts of others."""
        return shown(super().__str__())


class BundleError(RagEngineError):
    """A bundle is missing, incomplete, damaged, or of a format this version does not read."""


class IndexFolderError(RagEngineError):
    """An index folder is missing, incomplete, damaged, or does not belong to the bundle."""


class PassagesError(RagEngineError):
    """A passage file, its embeddings or a questions file cannot be read as what it should be."""


class OptionsError(RagEngineError, ValueError):
    """Generation options are wrong; the message lists every wrong field."""


class InputError(RagEngineError, ValueError):
    """A question, document or array given to the engine cannot be used."""


class DeviceError(RagEngineError):
    """The chosen device or execution provider cannot be used here."""


class MemoryLimitError(RagEngineError):
    """A call needs more memory than ``memory_limit`` allows."""


class DeadlineError(RagEngineError, TimeoutError):
    """The deadline of a call passed before its end; it leaves nothing behind."""


class CancelledError(RagEngineError):
    """A call was cancelled before its end; it leaves nothing behind."""


class ClosedError(RagEngineError):
    """An engine, retriever, generator or index is used after its ``close()``."""


class ProcessError(RagEngineError):
    """An object that one process loaded is used in its fork, or sent to another process."""


class UnavailableError(RagEngineError):
    """A part of the model that other processes compute did not answer; the call may be repeated."""


class ShardError(UnavailableError):
    """A shard of an index does not answer, or answers from another index or with what cannot be used.

    shard      its name
    addresses  where its servers are; empty for one on this machine
    refused    whether all of them answered, in time, with what is no answer to the question
    """

    def __init__(
        self, message: str, shard: str = "", addresses: tuple[str, ...] = (), *, refused: bool = False
    ) -> None:
        super().__init__(message)
        self.shard, self.addresses, self.refused = shard, addresses, refused


class DependencyError(RagEngineError):
    """A feature needs a package that is not installed."""


class GraphOutputError(RagEngineError):
    """A graph could not be computed, or returned NaN or infinite numbers."""


class ExportError(RagEngineError):
    """A checkpoint cannot be exported, or the exported graphs do not compute what torch computes."""
