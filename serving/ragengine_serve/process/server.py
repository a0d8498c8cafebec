"""One server process: listens, loads, serves, and drains when it is told to end."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator

import uvicorn

from ragengine_serve.app import create_app
from ragengine_serve.http.protocol import connection_protocol
from ragengine_serve.observability.logs import log
from ragengine_serve.state import ServerState

_LOOK = 0.02  # seconds between two looks whether the last request has ended
_MEASURE = 10  # seconds between two measurements of memory
_CLOSING = 5  # seconds that cancelled work may take to end


class _Uvicorn(uvicorn.Server):
    """uvicorn, whose process handles signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    state: ServerState,
    listening: socket.socket,
    *,
    load_first: bool = False,
    ready: Callable[[], Awaitable[None]] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, or until ``stop`` is set; then drain.

    Running requests finish, within ``drain_timeout``; new ones get 503.  A second signal ends them, too.

    Args:
        state: the parts of this process.
        listening: the bound socket.
        load_first: answer nothing before the models are loaded, instead of /health and 503.
        ready: called when the models are loaded.
        stop: ends the server from within.

    Raises:
        RagEngineError: the models cannot be loaded.
    """
    stop = stop or asyncio.Event()
    server = _Uvicorn(
        uvicorn.Config(
            create_app(state),
            http=connection_protocol(state.settings.request_timeout),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_CLOSING,
        )
    )
    _on_signals(stop, server)
    loading = asyncio.ensure_future(_in_thread(state.load))
    if load_first:
        await asyncio.wait({loading, asyncio.ensure_future(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    measuring = asyncio.create_task(_measure(state))
    try:
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            log.info("ready", extra={"fields": {"models": [model.name for model in state.models]}})
            if ready is not None:
                await ready()
            await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        await _drain(state, server)
    finally:
        measuring.cancel()
        server.should_exit = True
        await serving
        await asyncio.to_thread(state.close, _CLOSING)


async def _drain(state: ServerState, server: uvicorn.Server) -> None:
    """Let what runs finish, as long as it may take."""
    log.info("draining", extra={"fields": {"requests_in_flight": state.requests_in_flight}})
    state.draining = True
    state.scheduler.drain()
    loop = asyncio.get_running_loop()
    latest = loop.time() + state.settings.drain_timeout
    while (state.requests_in_flight or not state.scheduler.idle) and loop.time() < latest:
        if server.force_exit:
            break
        await asyncio.sleep(_LOOK)
    if state.requests_in_flight:
        log.warning("cancelling", extra={"fields": {"requests_in_flight": state.requests_in_flight}})
        await asyncio.to_thread(state.scheduler.stop, _CLOSING)
        await asyncio.sleep(_LOOK)  # for the responses that say so


def _on_signals(stop: asyncio.Event, server: uvicorn.Server) -> None:
    """SIGTERM and SIGINT end the server: the first in order, the second at once."""
    if threading.current_thread() is not threading.main_thread():
        return

    def told() -> None:
        server.force_exit = stop.is_set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told)


async def _measure(state: ServerState) -> None:
    while True:
        state.metrics.measure(state.models)
        await asyncio.sleep(_MEASURE)


async def _in_thread(function: Callable[[], None]) -> None:
    """Run what may take minutes in a thread that the end of the process does not wait for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish(error: BaseException | None) -> None:
        if not done.done():
            done.set_result(None) if error is None else done.set_exception(error)

    def run() -> None:
        error = None
        try:
            function()
        except BaseException as reason:  # raised where it is awaited
            error = reason
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(finish, error)

    threading.Thread(target=run, name="loader", daemon=True).start()
    await done
