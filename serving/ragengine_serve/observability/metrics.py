"""Prometheus metrics, named after those of text-embeddings-inference, with `rag_` in front.

With several workers prometheus_client's multiprocess mode adds them up: each process writes its own files in
``PROMETHEUS_MULTIPROC_DIR``, which the supervisor sets before any of them imports this module.
"""

import os
from collections.abc import Iterable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from ragengine.runtime.memory import resident_bytes
from ragengine.version import __version__
from ragengine_serve.models.served_model import ServedModel

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_STAGES = {
    "queue": "queue",
    "tokenize_question": "tokenization",
    "encode_question": "encode",
    "search": "search",
    "tokenize_documents": "tokenization_documents",
    "read_documents": "read_documents",
    "decode": "decode",
}
"""The engine's stages, and their names in the metrics."""
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """The metrics of one process, and all processes' together as text."""

    def __init__(self) -> None:
        self._own = CollectorRegistry()
        counter = partial(Counter, registry=self._own)
        histogram = partial(Histogram, registry=self._own)
        gauge = partial(Gauge, registry=self._own)
        self._requests = counter(
            "rag_request_count", "Requests by endpoint and outcome.", ["endpoint", "outcome"]
        )
        self._duration = histogram(
            "rag_request_duration_seconds",
            "Seconds from a request to the end of its response.",
            ["endpoint"],
            buckets=_SECONDS,
        )
        self._stages = {
            stage: histogram(
                f"rag_request_{name}_duration_seconds",
                f"Seconds of a question's stage {stage}.",
                buckets=_SECONDS,
            )
            for stage, name in _STAGES.items()
        }
        self._batches = histogram("rag_batch_size", "Questions computed together.", ["stage"], buckets=_SIZES)
        self._shared = counter(
            "rag_request_shared_count", "Questions that waited for an equal one, or were cached.", ["how"]
        )
        self._tokens = counter("rag_generated_tokens", "Tokens of all answers.", ["model"])
        self._documents = counter("rag_read_documents", "Documents read for all answers.", ["model"])
        self._queue = gauge("rag_queue_size", "Questions that wait.", multiprocess_mode="livesum")
        self._running = gauge(
            "rag_questions_running", "Questions being computed.", multiprocess_mode="livesum"
        )
        self._in_flight = gauge(
            "rag_requests_in_flight", "Requests without an end yet.", multiprocess_mode="livesum"
        )
        self._memory = gauge(
            "rag_resident_bytes",
            "Resident memory of a worker.",
            multiprocess_mode="liveall",
        )
        self._restarts = counter("rag_worker_restarts", "Workers that died and were replaced.")
        self._models = gauge(
            "rag_model_info",
            "1 for each model that is served.",
            ["model", "precision", "bundle", "version"],
            multiprocess_mode="livemostrecent",
        )
        self._indexes = gauge(
            "rag_index_info",
            "Passages of the index that a model answers from; 0 for one that it does no more.",
            ["model", "index"],
            multiprocess_mode="livemostrecent",
        )
        self._shards = gauge(
            "rag_shard_asked",
            "1 for each shard that answers may lack and that every question asks; 0 while one does not.",
            ["model", "shard"],
            multiprocess_mode="livemin",
        )
        self._without = counter(
            "rag_shard_missing_count", "Answers and lists of documents without a shard.", ["model", "shard"]
        )
        self._current: dict[str, str] = {}
        self._health: dict[str, set[str]] = {}

    def request(self, endpoint: str, outcome: str, seconds: float) -> None:
        """A request has ended."""
        self._requests.labels(endpoint, outcome).inc()
        self._duration.labels(endpoint).observe(seconds)

    def in_flight(self, change: int) -> None:
        """A request has begun (1) or ended (-1)."""
        self._in_flight.inc(change)

    def stages(self, timings_ms: Mapping[str, float]) -> None:
        """How long the stages of a question took."""
        for stage, milliseconds in timings_ms.items():
            if stage in self._stages:
                self._stages[stage].observe(milliseconds / 1000)

    def answered(self, model: str, tokens: int, documents: int) -> None:
        """An answer is there."""
        self._tokens.labels(model).inc(tokens)
        self._documents.labels(model).inc(documents)

    def batch(self, stage: str, size: int) -> None:
        """Questions are computed together."""
        self._batches.labels(stage).observe(size)

    def queue(self, waiting: int, running: int) -> None:
        """How many questions wait, and how many are computed."""
        self._queue.set(waiting)
        self._running.set(running)

    def shared(self, how: str) -> None:
        """A question is not computed again."""
        self._shared.labels(how).inc()

    def restarted(self) -> None:
        """A worker was replaced."""
        self._restarts.inc()

    def models(self, models: Iterable[ServedModel]) -> None:
        """Models and indexes that answer now."""
        for model in models:
            info = model.info()
            labels = (model.name, info["bundle"]["precision"], model.bundle_fingerprint, __version__)
            self._models.labels(*labels).set(1)
            if (old := self._current.get(model.name)) is not None:
                self._indexes.labels(model.name, old).set(0)
            self._current[model.name] = model.index_fingerprint
            self._indexes.labels(model.name, model.index_fingerprint).set(info["index"]["passages"])

    def without_shards(self, model: str, missing: Iterable[str]) -> None:
        """Something was answered without these shards."""
        for shard in missing:
            self._without.labels(model, shard).inc()

    def render(self, models: Iterable[ServedModel]) -> bytes:
        """All metrics in Prometheus' text format: those of all workers, where there are several."""
        self.measure(models)
        if not os.environ.get(MULTIPROCESS):
            return generate_latest(self._own)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus_client
        return generate_latest(registry)

    def measure(self, models: Iterable[ServedModel]) -> None:
        """Note how much memory this process has, and which shards it asks."""
        self._memory.set(resident_bytes() or 0)
        for model in models:
            health = model.shard_health()
            for gone in self._health.get(model.name, set()) - health.keys():  # of an index that was swapped
                self._shards.labels(model.name, gone).set(1)
            self._health[model.name] = set(health)
            for name, one in health.items():
                self._shards.labels(model.name, name).set(one.state == "closed")
