"""Question encoding: its deployment, and the encoder that an engine replica has in its place."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from ray import serve

from ragengine.arrays import FloatArray
from ragengine.bundle.bundle import Bundle
from ragengine.errors import GraphOutputError
from ragengine.retrieval.encoder import TextEncoder
from ragengine.runtime.cancellation import NEVER, Stop
from ragengine.tokenization import Encoded, Tokenizer
from ragengine_ray.serve.calls import Peer, check_version
from ragengine_ray.serve.options import AppOptions

_CHECKED = "What is this?"
_TOLERANCE = 1e-4


class QuestionEncoder:
    """A deployment: q(x) of questions, those of all engines in common batches."""

    def __init__(self, options: AppOptions, *shards: Any) -> None:
        """``shards`` are only deployed with it."""
        settings = options.settings
        bundle = Bundle.open(settings.models[0].bundle, verify=settings.verify)
        self._version = bundle.fingerprint
        self._encoder = TextEncoder.load(
            bundle, bundle.manifest.question_encoder, device="cpu", threads=settings.graph_threads
        )
        self._batched.set_max_batch_size(settings.max_batch)
        self._known = self._encoded([self._encoder.tokenize_questions([_CHECKED])[0].ids])[0]

    async def encode(self, version: str, questions: list[list[int]]) -> FloatArray:
        """The vectors [Q, E] of Q questions, given as tokens, by the bundle with the fingerprint ``version``.

        Raises:
            VersionError: this replica has another bundle.
        """
        check_version("question encoder", version, self._version)
        return np.stack(await asyncio.gather(*(self._batched(ids) for ids in questions)))

    @serve.batch(batch_wait_timeout_s=0)  # type: ignore[untyped-decorator]  # ray.serve is untyped
    async def _batched(self, questions: list[list[int]]) -> list[FloatArray]:
        """A question that comes alone waits for nobody; those that come meanwhile are the next batch."""
        return list(await asyncio.to_thread(self._encoded, questions))

    def _encoded(self, questions: list[list[int]]) -> FloatArray:
        return self._encoder.encode_questions([Encoded(ids, False) for ids in questions])

    async def check_health(self) -> None:
        """Encode a question: its vector must still be the one of the start."""
        ids = self._encoder.tokenize_questions([_CHECKED])[0].ids
        vector = (await asyncio.to_thread(self._encoded, [ids]))[0]
        if not np.allclose(vector, self._known, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise GraphOutputError("The question encoder no longer gives the vector of its start.")


class PeerEncoder(TextEncoder):
    """The question encoder of an engine whose questions :class:`QuestionEncoder` encodes."""

    def __init__(self, bundle: Bundle, peer: Peer) -> None:
        spec = bundle.manifest.question_encoder
        tokenizer = Tokenizer(bundle.file(spec.path, "tokenizer.json"), spec.tokenizer)
        no_session: Any = None  # the graph is loaded by the replicas that are asked
        super().__init__(tokenizer, no_session, spec)
        self._peer, self._version = peer, bundle.fingerprint

    def encode_questions(self, questions: Sequence[Encoded], stop: Stop = NEVER) -> FloatArray:
        """q(x) of tokenized questions, float32 [Q, E]."""
        stop.check("before the questions were encoded")
        return self._ask(questions)

    def wait(self, seconds: float) -> None:
        """Return when the deployment answers.

        Raises:
            UnavailableError: it did not in time.
        """
        self._ask(self.tokenize_questions([_CHECKED]), seconds)

    def _ask(self, questions: Sequence[Encoded], timeout: float | None = None) -> FloatArray:
        ids = [question.ids for question in questions]
        vectors: FloatArray = self._peer.ask("encode", self._version, ids, timeout=timeout)
        if vectors.shape != (len(ids), self.dimension):
            raise GraphOutputError(
                f"The question encoder returned vectors {list(vectors.shape)} for {len(ids)} questions and "
                f"{self.dimension} dimensions; deploy the application again."
            )
        return vectors
