"""Beam search over the marginal distribution, step for step as `GenerationMixin._beam_search`.

The graph has summed over the documents already, so to this search a RAG model looks like any
sequence-to-sequence model (paper, section 2.5).  RAG-Token sums with p(z | x); with weights that every beam
carries, p(z | x, y_<t), the same loop searches RAG-Sequence's own likelihood (``search="joint"``).

Greedy search is one beam that stops at its first finished output.  A question that is done waits unchanged
until it leaves the batch: its answer never depends on its neighbours.
"""

from dataclasses import replace

import numpy as np

from ragengine.arrays import BoolArray
from ragengine.generation.model import ROUNDING
from ragengine.generation.search.batch import Batch, leave_now
from ragengine.generation.search.beams import Beams
from ragengine.generation.search.candidates import DEAD, Candidates
from ragengine.generation.search.outputs import Output
from ragengine.generation.search.sampling import Sampler
from ragengine.generation.search.step import SearchStep
from ragengine.options import GenerationOptions


def beam_search(step: SearchStep) -> list[list[Output]]:
    """The best outputs of Q questions, at most ``num_return_sequences`` each, best first.

    Fewer where fewer were found.  With ``do_sample`` the candidates are drawn instead of taken from the top
    (`GenerationMode.BEAM_SAMPLE`).
    """
    options, (num_questions, n_docs) = step.options, step.log_prior.shape
    # Twice the beams, so that as many stay running when all of the best end here.
    count = max(2, 1 + len(options.eos_token_ids)) * options.num_beams
    sampler = Sampler(options, num_questions, step.vocab_size) if options.do_sample else None
    finished = Beams.empty(num_questions, options.num_beams, n_docs, options)
    running = Beams.started(num_questions, 1, n_docs, options)  # all beams start alike: one is enough
    parents = np.zeros((num_questions, 1), np.int64)
    done = np.zeros(num_questions, np.bool_)
    batch = Batch(num_questions)
    length = 1
    while True:
        candidates = step.candidates(
            running.tokens[:, :, :length],
            running.log_probs[:, :, 1:length],
            parents,
            running.scores,
            sampler.needed(running.scores.shape[1]) if sampler else count,
        )
        chosen = sampler.drawn(candidates, running.scores, count) if sampler else candidates.best(count)
        ends = _ends(chosen, options, length)

        finishing = ends & ~done[:, None]
        finishing[:, options.num_beams :] = False  # only the first num_beams may
        if finishing.any():
            ended = running.continued(chosen, length)
            penalised = ended.scores / np.float32(length**options.length_penalty)
            ended.scores = np.where(finishing, penalised, DEAD)
            merged = finished.joined(ended)
            finished = merged.take(merged.best(options.num_beams))

        going_on = replace(chosen, scores=np.where(ends, DEAD, chosen.scores)).best(options.num_beams)
        running, parents = running.continued(going_on, length), going_on.beams
        length += 1
        done |= ~_may_improve(running, finished, options, length)  # where all end, nothing runs on
        done |= _settled(running, finished, options, length)
        if not leave_now(done):
            continue
        batch.collect(done, finished.outputs(options.num_return_sequences))
        if done.all():
            return batch.outputs
        kept = np.flatnonzero(~done)
        batch.keep(kept)
        step.keep(kept)
        if sampler:
            sampler.keep(kept)
        running, finished = running.of_questions(kept), finished.of_questions(kept)
        parents, done = parents[kept], done[kept]


def _ends(candidates: Candidates, options: GenerationOptions, length: int) -> BoolArray:
    """Which candidates go no further: bool [Q, C]."""
    if length + 1 >= options.longest:
        return np.ones_like(candidates.scores, np.bool_)
    ended: BoolArray = candidates.scores == DEAD
    for token in options.eos_token_ids:  # np.isin takes ten times as long for so few
        ended |= candidates.tokens == token
    return ended


def _may_improve(running: Beams, finished: Beams, options: GenerationOptions, length: int) -> BoolArray:
    """Whether a running beam may still beat a finished one: bool [Q].

    `_check_early_stop_heuristic` and `_beam_search_has_unfinished_sequences`; ``length`` counts the start
    token, and the penalty does not.
    """
    optimistic = options.early_stopping == "never" and options.length_penalty > 0
    reach = (options.longest if optimistic else length) - 1
    best = running.scores[:, 0] / np.float32(reach**options.length_penalty)
    improvable: BoolArray = best > finished.scores.min(axis=1)
    if options.early_stopping is True or options.num_beams == 1:
        improvable &= (finished.scores == DEAD).any(axis=1)
    return improvable


def _settled(running: Beams, finished: Beams, options: GenerationOptions, length: int) -> BoolArray:
    """Whether no running beam can still change what is returned: bool [Q] (docs/concepts/early-end.md).

    transformers goes on until the running beams lose against all ``num_beams`` finished ones; of those only
    ``num_return_sequences`` are returned.  A beam's log-probability only falls, so that no score it may end
    with is above the one it would have now, at the length that favours it most.  With sampling the scores are
    not log-probabilities.
    """
    if options.do_sample:
        return np.zeros(len(running.scores), np.bool_)
    last = finished.scores[:, options.num_return_sequences - 1]  # best first
    most = running.scores[:, 0] + np.float32(ROUNDING * (options.longest - length))
    ends = (np.float32(end**options.length_penalty) for end in (length, options.longest - 1))
    reach = np.maximum(*(most / end for end in ends))
    settled: BoolArray = reach <= last  # of equal scores the one that ended first is kept
    return settled
