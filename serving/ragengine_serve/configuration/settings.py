# ruff: noqa: RUF009  `setting` makes a field
"""The settings of a server.  Each is a flag, an environment variable and a line of the configuration file."""

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ragengine.messages import short_repr
from ragengine.retrieval.sharding.remote.options import RemoteOptions
from ragengine.runtime.processor import available_cores
from ragengine_serve.errors import SettingsError

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_GPU_BATCH = 8


def setting(default: Any, help: str, low: int | None = None) -> Any:
    """A field with the sentence that ``--help`` shows, and the lowest number that it takes."""
    return field(default=default, metadata={"help": help, "low": low})


@dataclass(frozen=True)
class ModelFolders:
    """A model to serve: its name, its bundle and its index."""

    name: str
    bundle: Path
    index: Path

    def __post_init__(self) -> None:
        if not _MODEL_NAME.fullmatch(self.name):
            raise SettingsError(
                f"The model's name is {short_repr(self.name)}; it must be at most 64 letters, digits, dots, "
                "hyphens or underscores, and begin with a letter or digit."
            )


@dataclass(frozen=True)
class Settings:
    """How to serve.  Checks itself when made; the message names every wrong setting."""

    models: tuple[ModelFolders, ...] = ()
    host: str = setting("127.0.0.1", "Address to listen on; 0.0.0.0 for all.")
    port: int = setting(8000, "Port to listen on; 0 for a free one.", 0)
    uds: Path | None = setting(None, "Listen on this Unix socket instead.")
    workers: int = setting(1, "Processes, each with the models; a dead one is replaced.", 1)
    threads: int | None = setting(None, "Threads a graph may use [default: half of a worker's cores].", 1)
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "Where graphs run.")
    shard: Path | None = setting(
        None,
        "Answer engines from this index folder, a shard, instead of questions; without BUNDLE and INDEX.",
    )
    remote_shards: bool = setting(False, "Ask the servers that the index's shards.json names for its shards.")
    allow_partial: bool = setting(False, "Answer without shards that do not answer; the answer names them.")
    shard_timeout_ms: int = setting(5000, "Milliseconds that a shard's servers may take, all together.", 1)
    shard_hedge_ms: int = setting(250, "Milliseconds after which a shard's next server is asked, too.", 0)
    shard_key_file: Path | None = setting(None, "File with the key that the servers of shards ask for.")
    shard_ca_file: Path | None = setting(
        None, "Certificates that vouch for servers of shards at https:// (default: the system's)."
    )
    search_device: Literal["auto", "cpu", "cuda"] | None = setting(
        None, "Where indexes are searched [default: as --device]."
    )
    verify: Literal["sha256", "size"] = setting(
        "sha256", "Check every byte of bundle and index, or only sizes, which is faster."
    )
    api_key_file: Path | None = setting(None, "File with the keys that clients need, one a line.")
    admin_key_file: Path | None = setting(None, "File with the keys of /admin, which is off without.")
    index_root: Path | None = setting(None, "Folder below which /admin/index may take an index.")
    cors_allow_origin: tuple[str, ...] = setting(
        (), "Web pages of this origin may call the server; may be repeated."
    )
    max_concurrent_requests: int | None = setting(
        None, "Questions computed at once in a worker [default: its cores / --threads].", 1
    )
    max_queue: int = setting(64, "Questions that may wait in a worker; further ones get 429.", 0)
    max_batch: int = setting(8, "Waiting questions that are encoded and searched together.", 1)
    max_generation_batch: int | None = setting(
        None, "Waiting questions that are generated together [default: 1 on a CPU, 8 on a GPU].", 1
    )
    max_questions: int = setting(32, "Questions in the list of one request.", 1)
    max_request_bytes: int = setting(1_000_000, "Longest body of a request.", 1)
    max_n_docs: int = setting(100, "Most documents that a request may read.", 1)
    max_num_beams: int = setting(32, "Most beams, or samples, that a request may ask for.", 1)
    max_new_tokens: int = setting(512, "Longest answer in tokens that a request may ask for.", 1)
    default_deadline_ms: int = setting(60_000, "Milliseconds a request may take if it names none.", 1)
    request_timeout: int = setting(10, "Seconds that a client may take to send its request.", 1)
    drain_timeout: int = setting(30, "Seconds that running requests have after SIGTERM.", 0)
    cache_answers: int = setting(0, "Answers to keep for the same question and options; 0 for none.", 0)
    log_questions: bool = setting(False, "Write questions to the log.")
    log_level: Literal["debug", "info", "warning", "error"] = setting("info", "Least level to log.")
    otel_endpoint: str | None = setting(
        None, "OpenTelemetry collector (OTLP over HTTP) for a span a stage; extra [otel]."
    )

    def __post_init__(self) -> None:
        faults = [
            f"{spec.name} is {short_repr(value)}, it must be at least {low}"
            for spec in dataclasses.fields(self)
            if (low := spec.metadata.get("low")) is not None
            and (value := getattr(self, spec.name)) is not None
            and value < low
        ]
        if self.shard is not None and self.models:
            faults.append("shard is given beside models; serve either")
        if self.port > 65535:
            faults.append(f"port is {self.port}, it must be at most 65535")
        names = [model.name for model in self.models]
        faults += [
            f"two models are named {name}" for name in sorted({n for n in names if names.count(n) > 1})
        ]
        if self.admin_key_file is not None and self.index_root is None:
            faults.append("admin_key_file is given without index_root, below which indexes may be swapped in")
        faults += [
            f"cors_allow_origin is {short_repr(origin)}, it must be an origin such as https://example.org"
            for origin in self.cors_allow_origin
            if not re.fullmatch(r"https?://[^/\s]+|\*", origin)
        ]
        if faults:
            raise SettingsError(f"Wrong settings: {'; '.join(faults)}.")

    @property
    def remote(self) -> RemoteOptions | None:
        """How shards on other machines are asked; None: they are not."""
        if not self.remote_shards:
            return None
        return RemoteOptions(
            self.shard_timeout_ms / 1000,
            self.shard_hedge_ms / 1000,
            key_file=self.shard_key_file,
            ca_file=self.shard_ca_file,
        )

    @property
    def graph_threads(self) -> int:
        """Threads of a graph: half of a worker's cores, so that two questions are computed at once."""
        return self.threads or max(1, self._cores // 2)

    @property
    def executors(self) -> int:
        """Questions that a worker computes at once: as many as its cores have threads for."""
        return self.max_concurrent_requests or max(1, self._cores // self.graph_threads)

    def generation_batch(self, device: str) -> int:
        """Questions that are generated together on ``device``."""
        return self.max_generation_batch or (1 if device == "cpu" else _GPU_BATCH)

    @property
    def _cores(self) -> int:
        """The cores of a worker."""
        return max(1, available_cores() // self.workers)


SETTINGS = tuple(spec for spec in dataclasses.fields(Settings) if spec.name != "models")
"""The fields that are flags."""
