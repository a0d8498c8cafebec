"""From one step of the graph and the rules to the candidates of the search."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import FloatArray, IntArray
from ragengine.generation.decoders.base import StepOutputs
from ragengine.generation.marginalization import logsumexp
from ragengine.generation.search.rules import StepRules, TokenSets, shared

DEAD = np.float32(-np.inf)  # the score of a place that nothing occupies


@dataclass(frozen=True)
class Candidates:
    """Continuations of Q questions' beams, C a question; dead ones have the score -inf.

    scores         float32 [Q, C]     as the search counts them, the beam's score included
    beams, tokens  int64 [Q, C]
    log_probs      float32 [Q, D, C]  log p(y_t | x, z, y_<t), never changed by a rule
    """

    scores: FloatArray
    beams: IntArray
    tokens: IntArray
    log_probs: FloatArray

    def take(self, places: IntArray) -> "Candidates":
        """The candidates at ``places`` int64 [Q, M], in that order."""
        rows = np.arange(len(places))[:, None]
        return Candidates(
            scores=self.scores[rows, places],
            beams=self.beams[rows, places],
            tokens=self.tokens[rows, places],
            log_probs=self.log_probs[rows, :, places].transpose(0, 2, 1),
        )

    def best(self, count: int) -> "Candidates":
        """The ``count`` best, best first, ties by place; where there are fewer, dead ones at the end."""
        missing = count - self.scores.shape[1]
        if missing <= 0:
            return self.take(np.argsort(-self.scores, axis=1, kind="stable")[:, :count])
        wide = ((0, 0), (0, missing))
        return Candidates(
            scores=np.pad(self.scores, wide, constant_values=DEAD),
            beams=np.pad(self.beams, wide),
            tokens=np.pad(self.tokens, wide),
            log_probs=np.pad(self.log_probs, ((0, 0), *wide)),
        ).best(count)


def probe_ids(rules: StepRules, filler: int) -> IntArray:
    """The tokens to ask the graph for, int64 [Q, B, P] with P at least 1; ``filler`` fills the rest."""
    if (tokens := shared(rules.probed)) is not None:
        probes = sorted(tokens) or [filler]
        return np.full((len(rules.probed), len(rules.probed[0]), len(probes)), probes, np.int64)
    probed = [[sorted(tokens) for tokens in beams] for beams in rules.probed]
    width = max(1, *(len(tokens) for beams in probed for tokens in beams))
    return np.array(
        [[tokens + [filler] * (width - len(tokens)) for tokens in beams] for beams in probed], np.int64
    )


def ruled(
    outputs: StepOutputs,
    rules: StepRules,
    probes: IntArray,
    beam_scores: FloatArray,
    log_weights: FloatArray,
    penalty: float,
) -> Candidates:
    """The candidates that the rules leave, with the scores that the rules give them.

    ``beam_scores`` float32 [Q, B] and ``log_weights`` float32 [Q, D, B] are those the step was made with,
    ``probes`` is from :func:`probe_ids`, ``penalty`` the repetition penalty.
    """
    ranked = Candidates(outputs.scores, outputs.beams, outputs.tokens, outputs.log_probs)
    if not rules.named and not rules.margin:
        return ranked
    if shared(rules.probed) == set() or not any(tokens for beams in rules.probed for tokens in beams):
        return _without(ranked, rules)
    named = _named(outputs, rules, probes, beam_scores, log_weights, penalty)
    if rules.named:
        return named
    return _joined(_without(ranked, rules), named)


def _joined(first: Candidates, second: Candidates) -> Candidates:
    return Candidates(
        scores=np.concatenate([first.scores, second.scores], axis=1),
        beams=np.concatenate([first.beams, second.beams], axis=1),
        tokens=np.concatenate([first.tokens, second.tokens], axis=1),
        log_probs=np.concatenate([first.log_probs, second.log_probs], axis=2),
    )


def _without(ranked: Candidates, rules: StepRules) -> Candidates:
    """The graph's candidates, with those dead that are banned or come back with another score."""
    scores = ranked.scores.copy()
    if (tokens := rules.changed_everywhere) is not None:
        for token in tokens:  # np.isin takes ten times as long for so few
            scores[ranked.tokens == token] = DEAD
        return Candidates(scores, ranked.beams, ranked.tokens, ranked.log_probs)
    for question in range(len(scores)):
        gone = [b | p for b, p in zip(rules.banned[question], rules.penalised[question], strict=True)]
        pairs = zip(ranked.beams[question].tolist(), ranked.tokens[question].tolist(), strict=True)
        scores[question, [token in gone[beam] for beam, token in pairs]] = DEAD
    return Candidates(scores, ranked.beams, ranked.tokens, ranked.log_probs)


def _named(
    outputs: StepOutputs,
    rules: StepRules,
    probes: IntArray,
    beam_scores: FloatArray,
    log_weights: FloatArray,
    penalty: float,
) -> Candidates:
    """Candidates of the tokens that were asked for by name."""
    (q, b, p), d = probes.shape, log_weights.shape[1]
    usable = _members(probes, rules.probed)
    if rules.forced is not None:
        prices = np.zeros(probes.shape, np.float32)
    else:
        prices = logsumexp(outputs.probe_log_probs + log_weights[..., None], axis=1)  # log p(y_t | x, y_<t)
        # RepetitionPenaltyLogitsProcessor, on log-probabilities as in transformers' beam search and in all of
        # RAG-Token.  (Its greedy search and sampling from a bare generator, so RAG-Sequence's with one beam,
        # apply it to raw logits, where it depends on a constant that the model leaves free.)
        seen = _members(probes, rules.penalised)
        penalised = np.where(prices < 0, prices * np.float32(penalty), prices / np.float32(penalty))
        prices = np.where(seen, penalised, prices)
        banned = _members(probes, rules.banned)
        # PrefixConstrainedLogitsProcessor: where all that is allowed is banned, the constraint wins.  Beams
        # that are dead have no say: which tokens they hold depends on the other questions of the batch.
        free = usable & ~banned & (beam_scores > DEAD)[..., None]
        stuck = ~free.any(axis=(1, 2)) & (rules.allowed is not None)
        prices = np.where(banned, DEAD, prices)
        prices[stuck] = 0
    scores = np.where(usable, prices + beam_scores[..., None], DEAD).astype(np.float32)
    beams = np.broadcast_to(np.arange(b)[None, :, None], probes.shape)
    return Candidates(
        scores=scores.reshape(q, b * p),
        beams=beams.reshape(q, b * p),
        tokens=probes.reshape(q, b * p),
        log_probs=outputs.probe_log_probs.reshape(q, d, b * p),
    )


def _members(tokens: IntArray, sets: TokenSets) -> NDArray[np.bool_]:
    """Which of ``tokens`` [Q, B, P] are in their beam's set; the second of two equal tokens is not."""
    member = np.zeros(tokens.shape, np.bool_)
    for question, beams in enumerate(tokens.tolist()):
        for beam, row in enumerate(beams):
            wanted = sets[question][beam]
            first = {token: place for place, token in reversed(list(enumerate(row)))}
            member[question, beam] = [
                token in wanted and first[token] == place for place, token in enumerate(row)
            ]
    return member
