"""Certificates that openssl makes, and a server that speaks TLS in front of one that does not."""

import asyncio
import contextlib
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


def self_signed(folder: Path, name: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """A certificate for ``name`` that vouches for itself, and its key; skips where there is no openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder.mkdir(parents=True)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    made = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    made += ["-subj", "/CN=shard", "-addext", f"subjectAltName={name}"]
    made += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    written = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([openssl, "req", *made, *written], check=True, capture_output=True, timeout=60)
    return certificate, key


@contextlib.contextmanager
def tls_before(port: int, certificate: Path, key: Path) -> Iterator[str]:
    """The address of a server that takes TLS connections and passes what is said on to ``port``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    loop, started = asyncio.new_event_loop(), threading.Event()
    ends, bound = asyncio.Event(), []

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(_copied(reader, inner_writer), _copied(inner_reader, writer))
        finally:
            for one in (writer, inner_writer):
                one.transport.abort()
            await asyncio.sleep(0)

    async def serve() -> None:
        server = await asyncio.start_server(passed, "127.0.0.1", 0, ssl=context)
        bound.append(server.sockets[0].getsockname()[1])
        started.set()
        await ends.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.05)  # transports close their sockets

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(30)
    try:
        yield f"https://127.0.0.1:{bound[0]}"
    finally:
        loop.call_soon_threadsafe(ends.set)
        thread.join(30)
        loop.close()


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()
