"""The socket that the server listens on."""

import contextlib
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from ragengine.messages import one_line
from ragengine_serve.configuration.settings import Settings
from ragengine_serve.errors import StartError

_BACKLOG = 1024


@contextlib.contextmanager
def listening_socket(settings: Settings) -> Iterator[socket.socket]:
    """A bound socket; a Unix socket's file is removed at the end.

    Raises:
        StartError: the address is taken, or cannot be had.
    """
    try:
        bound = _bind_unix(settings.uds) if settings.uds else _bind_tcp(settings.host, settings.port)
    except OSError as reason:
        where = settings.uds or f"{settings.host}:{settings.port}"
        raise StartError(f"Cannot listen on {where}: {one_line(reason)}; choose another.") from reason
    try:
        bound.listen(_BACKLOG)
        bound.setblocking(False)
        os.set_inheritable(bound.fileno(), True)
        yield bound
    finally:
        bound.close()
        if settings.uds:
            settings.uds.unlink(missing_ok=True)


def address(bound: socket.socket) -> str:
    """Where clients find the server."""
    name = bound.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host, port = name[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_open(settings: Settings) -> bool:
    """Whether other machines can reach the server and nobody needs a key."""
    if settings.uds or settings.api_key_file:
        return False
    try:
        return not ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        return settings.host != "localhost"


def _bind_tcp(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(where)
    except BaseException:
        bound.close()
        raise
    return bound


def _bind_unix(path: Path) -> socket.socket:
    """Bind a Unix socket; the file of a server that is gone is replaced, any other file stays."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.lstat().st_mode) and not _answers(path):
            path.unlink()
        bound.bind(str(path))
    except BaseException:
        bound.close()
        raise
    return bound


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
