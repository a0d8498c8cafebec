"""A generator whose next-token probabilities come from a seeded table: searches tested without any graph.

It has the interface of :class:`~ragengine.generation.model.GeneratorModel` that searches use, so few tokens
that every output can be listed, and the mixture of the decoder graph in numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ragengine.bundle.manifest import GeneratorSpec, TokenizerSpec
from ragengine.generation.decoders.base import EncodedDocuments, Result, StepInputs, StepOutputs
from ragengine.runtime.cancellation import NEVER, Stop

V, START, EOS, PAD, BOS = 5, 2, 2, 1, 0
Prefix = tuple[int, ...]


@dataclass
class TableDecoding:
    """Beams as tuples of tokens; row numbers of the table stand in for encoded documents."""

    encoded: EncodedDocuments
    prefixes: list[list[Prefix]]
    beams: int
    steps: int
    length: int = 0

    def keep(self, questions: np.ndarray) -> None:
        self.encoded = self.encoded.of_questions(questions)
        self.prefixes = [self.prefixes[question] for question in questions.tolist()]


@dataclass
class TableModel:
    """p(y_t | x, z, y_<t) of Q questions and D documents; ``steps`` and ``started`` record what was asked."""

    seed: int = 0
    q: int = 2
    d: int = 3
    steps: list[StepInputs] = field(default_factory=list)
    started: list[tuple[int, int]] = field(default_factory=list)

    @property
    def spec(self) -> GeneratorSpec:
        return GeneratorSpec("generator", 1, 1, 1, V, 64, PAD, BOS, TokenizerSpec(PAD, 64, False))

    reads_chains = True

    @property
    def encoded(self) -> EncodedDocuments:
        """All documents; their rows are in the mask, so that `by_document` keeps them."""
        rows = np.arange(self.q * self.d).reshape(self.q, self.d, 1)
        return EncodedDocuments(rows, {})

    @property
    def log_prior(self) -> np.ndarray:
        """log p(z | x), float32 [Q, D]."""
        scores = np.random.default_rng(self.seed).normal(size=(self.q, self.d))
        return (scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)).astype(np.float32)

    def run_search(self, search: Callable[[], Result]) -> Result:
        return search()

    def next_log_probs(self, row: int, prefix: Prefix) -> np.ndarray:
        """log p(· | x, z, y_<t) after a prefix with its start token: float32 [V]."""
        logits = np.random.default_rng([self.seed, row, *prefix]).normal(scale=1.5, size=V)
        return (logits - np.logaddexp.reduce(logits)).astype(np.float32)

    def outputs(self, question: int, longest: int) -> dict[Prefix, np.ndarray]:
        """Every output of at most ``longest`` tokens, with log p(y_t | x, z, y_<t), float32 [T, D]."""
        rows = self.encoded.context_attention_mask[question, :, 0].tolist()
        found: dict[Prefix, np.ndarray] = {}
        running: dict[Prefix, np.ndarray] = {(): np.zeros((0, self.d), np.float32)}
        for length in range(1, longest + 1):
            longer: dict[Prefix, np.ndarray] = {}
            for prefix, so_far in running.items():
                following = np.stack([self.next_log_probs(row, (START, *prefix)) for row in rows], axis=1)
                for token in range(V):
                    ended = token == EOS or length == longest
                    (found if ended else longer)[(*prefix, token)] = np.vstack([so_far, following[token]])
            running = longer
        return found

    def start(self, encoded: EncodedDocuments, *, beams: int, steps: int) -> Any:
        """As a decoder with buffers, it holds no more beams and steps than this says."""
        self.started.append((beams, steps))
        return TableDecoding(encoded, [[()] for _ in encoded.context_attention_mask], beams, steps)

    def decode_step(self, decoding: Any, inputs: StepInputs, stop: Stop = NEVER) -> StepOutputs:
        stop.check(f"after {decoding.length} tokens")
        self.steps.append(inputs)
        decoding.prefixes = [
            _read(own, parents, tokens, chained=inputs.chained)
            for own, parents, tokens in zip(
                decoding.prefixes, inputs.beam_indices.tolist(), inputs.token_ids.tolist(), strict=True
            )
        ]
        decoding.length = len(decoding.prefixes[0][0])
        assert decoding.length <= decoding.steps
        assert all(len(own) <= decoding.beams for own in decoding.prefixes)
        rows = decoding.encoded.context_attention_mask[:, :, 0].tolist()
        log_probs = np.array(
            [
                [[self.next_log_probs(row, prefix) for prefix in own] for row in documents]
                for documents, own in zip(rows, decoding.prefixes, strict=True)
            ]
        )  # [Q, D, B, V]
        return mixture(log_probs, inputs)


def _read(own: list[Prefix], parents: list[int], tokens: list[int], *, chained: bool) -> list[Prefix]:
    """The prefixes of beams that have read their tokens."""
    if chained:
        return [(*own[parents[0]], *tokens[: place + 1]) for place in range(len(tokens))]
    return [(*own[parent], token) for parent, token in zip(parents, tokens, strict=True)]


def mixture(log_probs: np.ndarray, inputs: StepInputs) -> StepOutputs:
    """The outputs of the decoder graph for log p(y_t | x, z, y_<t) [Q, D, B, V]."""
    q, d, b, v = log_probs.shape
    marginal = np.logaddexp.reduce(inputs.log_weights[..., None] + log_probs, axis=1)
    totals = (marginal + inputs.beam_scores[..., None]).reshape(q, b * v)
    best = np.argsort(-totals, axis=1, kind="stable")[:, : inputs.num_candidates]
    probes = np.broadcast_to(inputs.probe_ids[:, None], (q, d, *inputs.probe_ids.shape[1:]))
    return StepOutputs(
        scores=np.take_along_axis(totals, best, axis=1).astype(np.float32),
        beams=best // v,
        tokens=best % v,
        log_probs=np.take_along_axis(log_probs.reshape(q, d, b * v), best[:, None], axis=2),
        probe_log_probs=np.take_along_axis(log_probs, probes, axis=3),
    )
