"""The probability of given outputs under every document, each shared prefix read once.

The outputs of a question form a trie.  One decoding step reads all its nodes of one depth as beams, each
continuing its parent's past, and asks for the probabilities of the tokens on the edges below by name: so T
steps score any number of outputs, and no logits [candidates, D, T, V] ever exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ragengine.arrays import FloatArray, IntArray
from ragengine.generation.decoders.base import EncodedDocuments, StepInputs
from ragengine.generation.model import GeneratorModel
from ragengine.generation.search.batch import leave_now
from ragengine.runtime.cancellation import NEVER, Stop


@dataclass
class _Level:
    """The nodes of one depth of one question's trie, and the edges that leave them.

    tokens    the last token of each node's prefix
    parents   each node's place in the level above
    children  for each node the tokens that may follow
    members   for each output that goes on: (its number, its node's place, its next token's place)
    """

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    children: list[list[int]] = field(default_factory=list)
    members: list[tuple[int, int, int]] = field(default_factory=list)


def output_log_probs(
    model: GeneratorModel,
    encoded: EncodedDocuments,
    outputs: Sequence[Sequence[IntArray]],
    start_tokens: Sequence[int],
    stop: Stop = NEVER,
) -> list[list[FloatArray]]:
    """log p(y_t | x, z, y_<t) of every token of every output: float32 [T, D] each, as ``outputs``.

    ``outputs`` are token ids [T] for each of Q questions, without the start token, which ``start_tokens``
    gives for each question; ``encoded`` are the questions' documents.
    """
    q, d, _ = encoded.context_attention_mask.shape
    tries = [_levels(given, start) for given, start in zip(outputs, start_tokens, strict=True)]
    found = [[np.empty((len(tokens), d), np.float32) for tokens in given] for given in outputs]
    depths = max(map(len, tries))
    widest = max((len(level.tokens) for levels in tries for level in levels), default=1)
    decoding = model.start(encoded, beams=widest, steps=depths)
    asked = np.arange(q)  # the questions of the batch, which leave it after their longest output
    for depth in range(depths):
        over = np.array([depth >= len(tries[question]) for question in asked])
        if leave_now(over):
            decoding.keep(np.flatnonzero(~over))
            asked = asked[~over]
        levels = [tries[n][depth] if depth < len(tries[n]) else _Level() for n in asked]
        width = max(1, *(len(level.tokens) for level in levels))
        edges = max(1, *(len(tokens) for level in levels for tokens in level.children))
        shape = len(asked), width
        tokens, parents = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        probes = np.zeros((*shape, edges), np.int64)
        for question, level in enumerate(levels):
            tokens[question, : len(level.tokens)] = level.tokens
            parents[question, : len(level.parents)] = level.parents
            for node, below in enumerate(level.children):
                probes[question, node, : len(below)] = below
        inputs = StepInputs(
            token_ids=tokens,
            beam_indices=parents,
            log_weights=np.zeros((len(asked), d, width), np.float32),
            beam_scores=np.zeros(shape, np.float32),
            num_candidates=1,
            probe_ids=probes,
        )
        probed = model.decode_step(decoding, inputs, stop).probe_log_probs
        for question, level in enumerate(levels):
            for output, node, edge in level.members:
                found[asked[question]][output][depth] = probed[question, :, node, edge]
    return found


def _levels(outputs: Sequence[IntArray], start_token: int) -> list[_Level]:
    """The trie of one question's outputs by depth; a depth has the nodes that some output goes on from."""
    levels = []
    places = {(): 0}  # of each prefix that is a node of the level above
    sequences = [tuple(tokens.tolist()) for tokens in outputs]
    for depth in range(max(map(len, sequences), default=0)):
        level, nodes = _Level(), {}
        for number, sequence in enumerate(sequences):
            if depth >= len(sequence):
                continue
            prefix, token = sequence[:depth], sequence[depth]
            if prefix not in nodes:
                nodes[prefix] = len(level.tokens)
                level.tokens.append(prefix[-1] if prefix else start_token)
                level.parents.append(places[prefix[:-1]])
                level.children.append([])
            below = level.children[nodes[prefix]]
            if token not in below:
                below.append(token)
            level.members.append((number, nodes[prefix], below.index(token)))
        levels.append(level)
        places = nodes
    return levels
