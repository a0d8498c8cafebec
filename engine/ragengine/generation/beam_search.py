"""Beam search over the marginal distribution, step for step as `GenerationMixin._beam_search`.

The graph has summed over the documents already, so to this search a RAG-Token model looks like any
sequence-to-sequence model (paper, section 2.5); beside tokens and scores it keeps each token's
log-probabilities under every document, from which the posteriors come.

Greedy search is one beam that stops at its first finished hypothesis.  A question that is done stays
in the batch unchanged until all are: its answer never depends on its neighbours.
"""

from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.generation.constraints import Constraints
from ragengine.generation.mixture import token_log_probs, token_posteriors
from ragengine.generation.model import GeneratorModel, Reading, Step
from ragengine.options import GenerationOptions
from ragengine.results import Hypothesis

IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float32]
BoolArray: TypeAlias = NDArray[np.bool_]

DEAD = np.float32(-np.inf)  # the score of a place in the beam that nothing occupies


@dataclass
class _Beams:
    """Partial or finished outputs of Q questions, best first; N places a question.

    scores     float32 [Q, N]
    tokens     int64 [Q, N, L], with the decoder's start token; L is max_length
    log_probs  float32 [Q, N, L, D], log p(y_t | x, z, y_<t) of each token
    lengths    int64 [Q, N], tokens in use
    """

    scores: FloatArray
    tokens: IntArray
    log_probs: FloatArray
    lengths: IntArray

    @classmethod
    def empty(cls, questions: int, places: int, options: GenerationOptions, n_docs: int) -> "_Beams":
        shape = (questions, places, options.max_length)
        tokens = np.full(shape, options.decoder_start_token_id, np.int64)
        log_probs = np.zeros((*shape, n_docs), np.float32)
        scores = np.full((questions, places), DEAD, np.float32)
        return cls(scores, tokens, log_probs, np.ones((questions, places), np.int64))

    def take(self, places: IntArray) -> "_Beams":
        """The beams at ``places`` int64 [Q, M], in that order."""
        rows = np.arange(len(places))[:, None]
        return _Beams(*(getattr(self, field.name)[rows, places] for field in fields(self)))

    def continued(self, step: Step, length: int) -> "_Beams":
        """Each candidate of ``step`` after the beam it continues."""
        beams = self.take(step.beams)
        beams.scores = step.scores
        beams.tokens[:, :, length] = step.tokens
        beams.log_probs[:, :, length] = step.log_probs.transpose(0, 2, 1)
        beams.lengths += 1
        return beams

    def best(self, count: int) -> IntArray:
        """Places of the ``count`` highest scores, best first, ties by place: int64 [Q, count]."""
        return np.argsort(-self.scores, axis=1, kind="stable")[:, :count]

    def joined(self, other: "_Beams") -> "_Beams":
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return _Beams(*(np.concatenate(pair, axis=1) for pair in pairs))


def beam_search(
    model: GeneratorModel, reading: Reading, log_prior: FloatArray, options: GenerationOptions
) -> list[list[Hypothesis]]:
    """Search for the best outputs of Q questions whose documents have been read.

    ``log_prior`` is log p(z | x), float32 [Q, D].  Returns for each question at most
    ``num_return_sequences`` hypotheses, best first (fewer where fewer were found).
    """
    num_questions, n_docs = log_prior.shape
    constraints = Constraints(options)
    finished = _Beams.empty(num_questions, options.num_beams, options, n_docs)
    running = _Beams.empty(num_questions, 1, options, n_docs)  # all beams start alike: one is enough
    running.scores[:] = 0
    parents = np.zeros((num_questions, 1), np.int64)
    done = np.zeros(num_questions, np.bool_)
    length = 1
    while not done.all():
        step, reading = _advance(model, reading, running, parents, log_prior, constraints, length)
        candidates = running.continued(step, length)
        ends = _ends(candidates, options, length)

        # Only the best num_beams may finish; the others are there to keep as many beams running.
        top = np.arange(ends.shape[1]) < options.num_beams
        penalised = candidates.scores / np.float32(length**options.length_penalty)
        ended = replace(candidates, scores=np.where(ends & top & ~done[:, None], penalised, DEAD))
        merged = finished.joined(ended)
        finished = merged.take(merged.best(options.num_beams))

        candidates.scores = np.where(ends, DEAD, candidates.scores)
        survivors = candidates.best(options.num_beams)
        running, parents = candidates.take(survivors), np.take_along_axis(step.beams, survivors, axis=1)
        length += 1
        done |= ends.all(axis=1) | ~_may_improve(running, finished, options, length)
    return [
        _hypotheses(finished, question, log_prior[question], options) for question in range(num_questions)
    ]


def _advance(
    model: GeneratorModel,
    reading: Reading,
    running: _Beams,
    parents: IntArray,
    log_prior: FloatArray,
    constraints: Constraints,
    length: int,
) -> tuple[Step, Reading]:
    """One step of the model under the constraints: exactly C candidates, dead where there are fewer."""
    options = constraints.options
    num_questions, num_beams = running.scores.shape
    count = max(2, 1 + len(options.eos_token_ids)) * options.num_beams
    forced = constraints.forced(length)
    banned = [] if forced is not None else constraints.banned(running.tokens[:, :, :length])
    margin = max((sum(map(len, beams)) for beams in banned), default=0)
    probe = options.decoder_start_token_id if forced is None else forced  # the graph wants one in any case
    step, reading = model.step(
        reading,
        running.tokens[:, :, length - 1],
        parents,
        log_weights=np.repeat(log_prior[:, :, None], num_beams, axis=2),
        beam_scores=running.scores,
        num_candidates=min(count + margin, num_beams * model.spec.vocab_size),
        probe_ids=np.full((num_questions, num_beams, 1), probe, np.int64),
    )
    if forced is not None:
        step = _only(forced, running.scores, step)
    elif margin:
        step = _without(banned, step)
    return _best(step, count), reading


def _only(token: int, beam_scores: FloatArray, step: Step) -> Step:
    """Candidates when ``token`` is forced: every beam continues with it and keeps its score."""
    beams = np.arange(beam_scores.shape[1])[None, :].repeat(len(beam_scores), axis=0)
    return replace(
        step,
        scores=beam_scores,
        beams=beams,
        tokens=np.full_like(beams, token),
        log_probs=step.probe_log_probs[..., 0],
    )


def _without(banned: list[list[set[int]]], step: Step) -> Step:
    """Candidates with those that are banned for their beam dead."""
    scores = step.scores.copy()
    for question, beams in enumerate(banned):
        pairs = zip(step.beams[question].tolist(), step.tokens[question].tolist(), strict=True)
        scores[question, [token in beams[beam] for beam, token in pairs]] = DEAD
    return replace(step, scores=scores)


def _best(step: Step, count: int) -> Step:
    """The ``count`` best candidates, best first; where there are fewer, dead ones at the end."""
    missing = max(0, count - step.scores.shape[1])
    scores = np.pad(step.scores, ((0, 0), (0, missing)), constant_values=DEAD)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    beams, tokens = (np.pad(a, ((0, 0), (0, missing))) for a in (step.beams, step.tokens))
    log_probs = np.pad(step.log_probs, ((0, 0), (0, 0), (0, missing)))
    return replace(
        step,
        scores=np.take_along_axis(scores, order, axis=1),
        beams=np.take_along_axis(beams, order, axis=1),
        tokens=np.take_along_axis(tokens, order, axis=1),
        log_probs=np.take_along_axis(log_probs, order[:, None, :], axis=2),
    )


def _ends(candidates: _Beams, options: GenerationOptions, length: int) -> BoolArray:
    """Which candidates go no further: bool [Q, C]."""
    if length + 1 >= options.max_length:
        return np.ones_like(candidates.scores, np.bool_)
    ended: BoolArray = np.isin(candidates.tokens[:, :, length], options.eos_token_ids)
    ended |= candidates.scores == DEAD
    return ended


def _may_improve(running: _Beams, finished: _Beams, options: GenerationOptions, length: int) -> BoolArray:
    """Whether a running beam may still beat a finished one: bool [Q].

    `_check_early_stop_heuristic` and `_beam_search_has_unfinished_sequences`; ``length`` counts the
    start token, and the penalty does not.
    """
    optimistic = options.early_stopping == "never" and options.length_penalty > 0
    reach = (options.max_length if optimistic else length) - 1
    best = running.scores[:, 0] / np.float32(reach**options.length_penalty)
    improvable: BoolArray = best > finished.scores.min(axis=1)
    if options.early_stopping is True or options.num_beams == 1:
        improvable &= (finished.scores == DEAD).any(axis=1)
    return improvable


def _hypotheses(
    finished: _Beams, question: int, log_prior: FloatArray, options: GenerationOptions
) -> list[Hypothesis]:
    """The finished hypotheses of one question with their posteriors, best first."""
    hypotheses = []
    for place in range(options.num_return_sequences):
        if finished.scores[question, place] == DEAD:
            break
        used = slice(1, int(finished.lengths[question, place]))
        log_probs = finished.log_probs[question, place, used]
        token_scores = token_log_probs(log_prior, log_probs)
        hypotheses.append(
            Hypothesis(
                token_ids=finished.tokens[question, place, used].copy(),
                score=float(finished.scores[question, place]),
                log_prob=float(token_scores.sum(dtype=np.float64)),
                token_log_probs=token_scores,
                token_posteriors=token_posteriors(log_prior, log_probs),
            )
        )
    return hypotheses
