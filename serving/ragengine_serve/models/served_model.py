"""A loaded model, and what a client may know of it."""

import contextlib
import dataclasses
import hashlib
import json
import threading
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

from ragengine import RagEngine
from ragengine.bundle.manifest import BundleManifest
from ragengine.errors import OptionsError
from ragengine.generation.marginalization import Marginalize
from ragengine.generation.validation import check_streamable
from ragengine.retrieval.manifest import IndexManifest
from ragengine.retrieval.sharding.breaker import Health
from ragengine.retrieval.sharding.sharded_index import ShardedIndex
from ragengine_serve.configuration.settings import ModelFolders, Settings
from ragengine_serve.errors import SettingsError

OpenEngine: TypeAlias = Callable[[ModelFolders, Settings], RagEngine]
"""Loads the engine of a model."""
_WARM_UP = "What is this?"


class ServedModel:
    """A loaded model under its name.  Safe to use from several threads.

    ``version`` names the bundle and the index that answer now; it changes with every swap.
    """

    def __init__(self, folders: ModelFolders, engine: RagEngine) -> None:
        self.name = folders.name
        self.engine = engine
        self.bundle_fingerprint = fingerprint(engine.bundle.manifest)
        self._swaps = 0
        self._swapping = threading.Lock()
        self._read_index()

    @classmethod
    def load(
        cls, folders: ModelFolders, settings: Settings, open_engine: OpenEngine | None = None
    ) -> "ServedModel":
        """Load a model and answer once, so that the first request is no slower than others.

        ``open_engine`` loads the engine in another way than from its folders alone.

        Raises:
            RagEngineError: bundle or index cannot be used.
            SettingsError: the model's own defaults are beyond the limits of requests.
        """
        engine = (open_engine or _open_here)(folders, settings)
        try:
            options = engine.default_options
            for limit, value in (
                ("max_n_docs", options.n_docs),
                ("max_num_beams", options.paths),
                ("max_new_tokens", options.longest - 1),
            ):
                if value > getattr(settings, limit):
                    raise SettingsError(
                        f"{limit} is {getattr(settings, limit)}, and the model {folders.name} takes {value} "
                        "by default; raise the limit."
                    )
            engine.generate(_WARM_UP)
        except BaseException:
            engine.close()
            raise
        return cls(folders, engine)

    @property
    def version(self) -> tuple[str, str, int]:
        """Fingerprints of bundle and index, and how many swaps there were."""
        return self.bundle_fingerprint, self.index_fingerprint, self._swaps

    @property
    def batches(self) -> bool:
        """Whether an answer is the same in a batch as alone."""
        return not self.engine.bundle.manifest.questions_share_a_scale

    def swap_index(self, path: str, verify: Literal["sha256", "size"]) -> None:
        """Answer from the index at ``path``; a running question keeps the old one.

        Raises:
            IndexFolderError: the new index cannot be used; nothing has changed.
        """
        with self._swapping:
            self.engine.swap_index(path, verify=verify)
            self._swaps += 1
            self._read_index()

    def shard_health(self) -> dict[str, Health]:
        """By name the shards that answers may lack: whether this process asks them now."""
        index = self.engine.retriever.index
        return index.shard_health if isinstance(index, ShardedIndex) else {}

    def info(self) -> dict[str, Any]:
        """What ``/info`` says of the model."""
        bundle = self.engine.bundle.manifest
        return {
            "name": self.name,
            "bundle": {
                "fingerprint": self.bundle_fingerprint,
                "precision": bundle.precision,
                "architecture": bundle.rag.architecture,
                "passage_encoder": bundle.passage_encoder is not None,
            },
            "index": {
                "fingerprint": self.index_fingerprint,
                "passages": self._index.count,
                "dimension": self._index.dimension,
                "factory": self._index.factory,
                "swaps": self._swaps,
                "shards": {name: dataclasses.asdict(one) for name, one in self.shard_health().items()},
            },
            "device": self.engine.device,
            "default_options": self.engine.default_options.to_dict(),
            "streaming": self._streaming(),
        }

    def _streaming(self) -> list[str]:
        """For which ``marginalize`` an answer streams with one beam and the defaults otherwise."""
        found = []
        for marginalize in get_args(Marginalize):
            with contextlib.suppress(OptionsError):
                check_streamable(
                    self.engine.default_options.replace(
                        num_beams=1, num_return_sequences=1, marginalize=marginalize
                    )
                )
                found.append(marginalize)
        return found

    def _read_index(self) -> None:
        self._index: IndexManifest = self.engine.retriever.index.manifest
        self.index_fingerprint = fingerprint(self._index)


def _open_here(folders: ModelFolders, settings: Settings) -> RagEngine:
    """The engine of a model, all of it in this process."""
    return RagEngine.load(
        folders.bundle,
        folders.index,
        device=settings.device,
        threads=settings.graph_threads,
        verify=settings.verify,
        search_device=settings.search_device,
        remote=settings.remote,
        allow_partial=settings.allow_partial,
    )


def fingerprint(manifest: BundleManifest | IndexManifest) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a manifest, which names the hash of every file."""
    content = json.dumps(dataclasses.asdict(manifest), sort_keys=True, default=str)
    return hashlib.sha256(content.encode("utf-8")).hexdigest()[:16]
