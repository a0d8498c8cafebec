"""The engine's deployment: the server's application in a replica of Ray Serve."""

import asyncio
import contextlib
import math

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Receive, Scope, Send

from ragengine import RagEngine
from ragengine.bundle.bundle import Bundle
from ragengine.errors import GraphOutputError
from ragengine.generation.generator import Generator
from ragengine.retrieval.open_index import open_index
from ragengine.retrieval.retriever import Retriever
from ragengine.retrieval.searched_index import SearchedIndex
from ragengine.retrieval.sharding.manifest import is_sharded
from ragengine_ray.serve.calls import ENCODER, Peer, shard_name
from ragengine_ray.serve.encoding import PeerEncoder
from ragengine_ray.serve.options import AppOptions
from ragengine_ray.serve.shards import open_peers
from ragengine_serve.app import create_app
from ragengine_serve.configuration.settings import ModelFolders, Settings
from ragengine_serve.observability.logs import configure_logging
from ragengine_serve.state import ServerState

_QUESTION, _ANSWER = "What is this?", "A test"
_TOLERANCE = 1e-3  # of the score that is checked, in nats
_CLOSING = 5  # seconds that cancelled work may take to end


class Engine:
    """A deployment: answers over HTTP, as a process of `ragengine serve` does.

    It is ready when it has answered a question, with the encoder of its own version.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, options: AppOptions, bound: dict[str, DeploymentHandle]
    ) -> None:
        """``bound`` are deployments of this application by name, which have no other."""
        configure_logging(options.settings.log_level)
        self._options, self._bound = options, bound
        self._state = ServerState.of(options.settings, self._open)
        await asyncio.to_thread(self._load)

    def _load(self) -> None:
        self._state.load()
        (self._prepared,) = self._state.models.get(None).engine.prepare([_QUESTION])
        self._known = self._scored()

    def __serve_build_asgi_app__(self) -> FastAPI:
        application = create_app(self._state)
        application.add_middleware(RelativePaths)
        return application

    async def check_health(self) -> None:
        """Score an answer to a question that was encoded and searched at the start: it must be as probable.

        Other deployments are not asked: they have health checks of their own, and would be no reason to
        replace this replica.
        """
        score = await asyncio.to_thread(self._scored)
        if not math.isclose(score, self._known, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
            raise GraphOutputError(
                f"A known answer scores {score:.6g}, and {self._known:.6g} at the start; replace the replica."
            )

    def _scored(self) -> float:
        return self._state.models.get(None).engine.score(self._prepared, _ANSWER)

    def __del__(self) -> None:
        """Serve has let the running requests finish."""
        with contextlib.suppress(AttributeError):  # the constructor failed
            self._state.close(_CLOSING)

    def _open(self, folders: ModelFolders, settings: Settings) -> RagEngine:
        """The engine of a model, whose parts are computed by other deployments where there are any."""
        bundle = Bundle.open(folders.bundle, verify=settings.verify)
        threads, encoder = settings.graph_threads, None
        if self._options.encoders:
            encoder = PeerEncoder(bundle, self._peer(ENCODER, "question encoder"))
            encoder.wait(self._options.start_timeout)
        with contextlib.ExitStack() as undo:
            index = self._open_index(folders, settings)
            undo.callback(index.close)
            retriever = Retriever(bundle, index, device=settings.device, threads=threads, encoder=encoder)
            generator = Generator(bundle, device=settings.device, threads=threads)
            engine = RagEngine(bundle, retriever, generator, threads=threads)
            undo.pop_all()
        return engine

    def _open_index(self, folders: ModelFolders, settings: Settings) -> SearchedIndex:
        if not is_sharded(folders.index):
            device = settings.search_device or settings.device
            return open_index(folders.index, verify=settings.verify, device=device)

        def peer(number: int) -> Peer:
            return self._peer(shard_name(number), f"shard {number}")

        return open_peers(folders, peer, self._options.start_timeout)

    def _peer(self, name: str, what: str) -> Peer:
        """Another deployment, of this application or of that which ``retrieval`` names."""
        application = self._options.retrieval
        if application is None:
            return Peer(what, lambda: self._bound[name], self._options.answer_timeout)
        return Peer(
            f"{what} of the application {application}",
            lambda: serve.get_deployment_handle(name, app_name=application),
            self._options.answer_timeout,
        )


class RelativePaths:
    """ASGI middleware: below a ``route_prefix``, keys and error bodies go by the path after it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        prefix = scope.get("root_path", "")
        if scope["type"] == "http" and prefix and scope["path"].startswith(prefix):
            scope = {**scope, "path": scope["path"].removeprefix(prefix) or "/", "root_path": ""}
        await self._app(scope, receive, send)
