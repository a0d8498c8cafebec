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
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.retriever import Retriever
from ragengine_ray.serve.calls import Peer
from ragengine_ray.serve.encoding import PeerEncoder
from ragengine_ray.serve.options import AppOptions
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
        self, options: AppOptions, encoder: DeploymentHandle | None
    ) -> None:
        configure_logging(options.settings.log_level)
        self._options, self._encoder = options, encoder
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
                f"The log-probability of a known answer is {score:.6g} and was {self._known:.6g} at the start."
            )

    def _scored(self) -> float:
        return self._state.models.get(None).engine.score(self._prepared, _ANSWER)

    def __del__(self) -> None:
        """Serve has let the running requests finish."""
        with contextlib.suppress(AttributeError):  # the constructor failed
            self._state.close(_CLOSING)

    def _open(self, folders: ModelFolders, settings: Settings) -> RagEngine:
        """The engine of a model, which asks the question encoder where there is one."""
        find = self._find_encoder()
        if find is None:
            return RagEngine.load(
                folders.bundle,
                folders.index,
                device=settings.device,
                threads=settings.graph_threads,
                verify=settings.verify,
                search_device=settings.search_device,
            )
        bundle = Bundle.open(folders.bundle, verify=settings.verify)
        encoder = PeerEncoder(bundle, find)
        encoder.wait(self._options.start_timeout)
        index = PassageIndex.open(
            folders.index, verify=settings.verify, device=settings.search_device or settings.device
        )
        with contextlib.ExitStack() as undo:
            undo.callback(index.close)
            retriever = Retriever(bundle, index, encoder=encoder)
            generator = Generator(bundle, device=settings.device, threads=settings.graph_threads)
            engine = RagEngine(bundle, retriever, generator, threads=settings.graph_threads)
            undo.pop_all()
        return engine

    def _find_encoder(self) -> Peer | None:
        name, bound = self._options.retrieval, self._encoder
        if name is not None:
            return Peer(
                f"question encoder of the application {name}",
                lambda: serve.get_deployment_handle("QuestionEncoder", app_name=name),
                self._options.answer_timeout,
            )
        if bound is not None:
            return Peer("question encoder", lambda: bound, self._options.answer_timeout)
        return None


class RelativePaths:
    """ASGI middleware: below a ``route_prefix``, keys and error bodies go by the path after it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        prefix = scope.get("root_path", "")
        if scope["type"] == "http" and prefix and scope["path"].startswith(prefix):
            scope = {**scope, "path": scope["path"].removeprefix(prefix) or "/", "root_path": ""}
        await self._app(scope, receive, send)
