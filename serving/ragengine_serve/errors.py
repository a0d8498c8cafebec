"""What a server refuses, and what a client is told."""

from ragengine.errors import RagEngineError


class SettingsError(RagEngineError):
    """A flag, an environment variable or a line of the configuration file cannot be used."""


class StartError(RagEngineError):
    """The server cannot start: its address is taken, or a worker ends before it is ready."""


class ApiError(Exception):
    """An answer to a request that is not what was asked for.

    status       the HTTP status
    type         what kind of fault it is, a word for programs
    message      one sentence for people
    field        the field of the request that is wrong, if one is
    retry_after  seconds after which the same request may succeed
    """

    def __init__(
        self,
        status: int,
        type: str,
        message: str,
        field: str | None = None,
        *,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.type, self.message, self.field = status, type, message, field
        self.retry_after = retry_after


class ServerError(RagEngineError):
    """What a server answered instead of a result, or that it could not be reached.

    status       the HTTP status; 0 where there was no answer
    type         the server's word for the fault
    field        the field of the request that is wrong, if one is
    retry_after  seconds after which the server may take the request
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        type: str = "connection",
        field: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.type, self.field, self.retry_after = status, type, field, retry_after
