"""Everything that a server process has, for its endpoints."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request

from ragengine_serve.configuration.keys import Keys
from ragengine_serve.configuration.settings import Settings
from ragengine_serve.models.registry import ModelRegistry
from ragengine_serve.models.served_model import OpenEngine
from ragengine_serve.observability.metrics import Metrics
from ragengine_serve.observability.tracing import Tracing
from ragengine_serve.scheduling.scheduler import Scheduler
from ragengine_serve.shards.served_shard import ServedShard

Swap = Callable[[str | None, str], Awaitable[None]]
"""Swaps the index of a model, given by name and resolved path, in every process that serves it."""


@dataclass
class ServerState:
    """The parts of a server process; ``swap`` is set by the process, which may be one of several."""

    settings: Settings
    models: ModelRegistry
    scheduler: Scheduler
    metrics: Metrics
    tracing: Tracing
    api_keys: Keys | None
    admin_keys: Keys | None
    swap: Swap
    requests_in_flight: int = 0
    draining: bool = False
    shard: ServedShard | None = None

    @classmethod
    def of(cls, settings: Settings, open_engine: OpenEngine | None = None) -> "ServerState":
        """The state of a process that has loaded nothing yet.

        ``open_engine`` loads the engines in another way than from their folders alone.

        Raises:
            SettingsError: a key file cannot be used.
        """
        metrics = Metrics()
        models = ModelRegistry(settings, open_engine)
        state = cls(
            settings=settings,
            models=models,
            scheduler=Scheduler(settings, metrics),
            metrics=metrics,
            tracing=Tracing(settings.otel_endpoint),
            api_keys=Keys(settings.api_key_file) if settings.api_key_file else None,
            admin_keys=Keys(settings.admin_key_file) if settings.admin_key_file else None,
            swap=lambda name, path: _swap_here(state, name, path),
        )
        return state

    def load(self) -> None:
        """Load the models, or the shard, and take requests; blocks."""
        if self.settings.shard is not None:
            self.shard = ServedShard.load(self.settings.shard, self.settings)
        self.models.load()
        self.metrics.models(self.models)
        self.scheduler.start()

    def swap_here(self, name: str | None, path: str) -> None:
        """Swap the index of a model in this process; blocks.

        Raises:
            ApiError: the index cannot be used; nothing has changed.
        """
        self.models.swap_index(name, path)
        self.scheduler.cache.clear()
        self.metrics.models(self.models)

    def close(self, wait: float) -> None:
        """End the threads and close the engines."""
        self.scheduler.stop(wait)
        self.models.close()
        if self.shard is not None:
            self.shard.close()
        self.tracing.close()


async def _swap_here(state: ServerState, name: str | None, path: str) -> None:
    import asyncio

    await asyncio.to_thread(state.swap_here, name, path)


def state_of(request: Request) -> ServerState:
    """The state of the server that a request came to: a dependency of endpoints."""
    state: ServerState = request.app.state.server
    return state
