"""Sampling from the marginal distribution: transformers' logits warpers and multinomial draws.

Scores are log-probabilities along the last axis, -inf where a token is ruled out; each warper returns the
same array with more of it ruled out.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import BoolArray, FloatArray, IntArray
from ragengine.generation.marginalization import logsumexp, token_log_probs, token_weights
from ragengine.generation.search.batch import Batch, leave_now
from ragengine.generation.search.beams import Beams
from ragengine.generation.search.candidates import DEAD, Candidates
from ragengine.generation.search.outputs import Output
from ragengine.generation.search.step import SearchStep
from ragengine.options import GenerationOptions

OUT = np.float32(-np.inf)


def warped(scores: FloatArray, options: GenerationOptions) -> FloatArray:
    """Apply temperature, top_k, top_p, typical_p and epsilon_cutoff, in transformers' order: [..., V]."""
    # With several beams each must keep a token that does not end it, as in `_get_logits_processor`.
    keep = 1 if options.num_beams == 1 else len(options.eos_token_ids) + 1
    scores = scores / np.float32(options.temperature)
    if options.top_k:
        scores = _at_least(scores, _nth_largest(scores, max(options.top_k, keep)))
    if options.top_p < 1:
        scores = _top_p(scores, options.top_p, keep)
    if options.typical_p < 1:
        scores = _typical(scores, options.typical_p, keep)
    if options.epsilon_cutoff > 0:
        enough = np.exp(_normalised(scores)) >= options.epsilon_cutoff
        scores = np.where(enough | (scores >= _nth_largest(scores, keep)), scores, OUT)
    return scores


class Sampler:
    """Draws from the candidates of a step.

    Every question has a random stream of its own from the same seed, so that its draws do not depend on
    its neighbours in the batch.
    """

    def __init__(self, options: GenerationOptions, num_questions: int, vocab_size: int) -> None:
        self._options = options
        self._vocab_size = vocab_size
        self._rngs = [np.random.default_rng(options.seed) for _ in range(num_questions)]

    def keep(self, questions: IntArray) -> None:
        """Draw for the questions at these places alone, in that order."""
        self._rngs = [self._rngs[question] for question in questions.tolist()]

    def needed(self, num_beams: int) -> int:
        """How many of the best candidates the draws depend on.

        One beam with ``top_k`` needs that many.  Several beams, or no ``top_k``, need the whole
        distribution: the graph ranks all beams together, not each beam's tokens.
        """
        options = self._options
        everything = num_beams * self._vocab_size
        return min(max(options.top_k, 2), everything) if num_beams == 1 and options.top_k else everything

    def drawn(self, candidates: Candidates, beam_scores: FloatArray, count: int) -> Candidates:
        """``count`` candidates of a question drawn from all beams together (beam-sample), best first.

        Scores are the beam's plus the warped log-probability, as transformers counts them.  Sorted, since
        only the first ``num_beams`` may finish; transformers 4.50 to 5.23 does not sort.
        """
        places, tokens, scores = self._warped_by_beam(candidates, beam_scores)  # [Q, B, N]
        flat = (scores + beam_scores[:, :, None]).reshape(len(scores), -1)
        noise = self._noise(tokens).reshape(flat.shape)
        chosen = draw(flat, noise, count)
        order = np.argsort(-np.take_along_axis(flat, chosen, axis=1), axis=1, kind="stable")
        chosen = np.take_along_axis(chosen, order, axis=1)
        taken = candidates.take(np.take_along_axis(places.reshape(len(places), -1), chosen, axis=1))
        return replace(taken, scores=np.take_along_axis(flat, chosen, axis=1))

    def one_per_beam(self, candidates: Candidates, beam_scores: FloatArray) -> Candidates:
        """One continuation of every beam: C = B, in the order of the beams (multinomial sampling).

        It is dead where the rules left the beam nothing to draw.
        """
        places, tokens, scores = self._warped_by_beam(candidates, beam_scores)
        chosen = draw(scores, self._noise(tokens), 1)  # [Q, B, 1]
        taken = candidates.take(np.take_along_axis(places, chosen, axis=2)[..., 0])
        nothing = np.take_along_axis(scores, chosen, axis=2)[..., 0] == OUT
        return replace(taken, scores=np.where(nothing, DEAD, taken.scores))

    def _noise(self, tokens: IntArray) -> NDArray[np.float64]:
        """A Gumbel variable for each of ``tokens`` [Q, B, N], out of one for every token of every beam.

        So a token's luck depends on nothing but the seed: not on how many candidates were fetched for a
        neighbour's sake, nor on their order.
        """
        shape = (tokens.shape[1], self._vocab_size)
        everything = np.stack([rng.gumbel(size=shape) for rng in self._rngs])
        return np.take_along_axis(everything, tokens, axis=2)

    def _warped_by_beam(
        self, candidates: Candidates, beam_scores: FloatArray
    ) -> tuple[IntArray, IntArray, FloatArray]:
        """Each beam's distribution after the warpers: places among the candidates, tokens, scores [Q, B, N].

        N is V; with one beam the candidates are the distribution, as far as it is needed."""
        num_questions, num_beams = beam_scores.shape
        if num_beams == 1:
            places = np.arange(candidates.scores.shape[1])[None, None].repeat(num_questions, axis=0)
            tokens = candidates.tokens[:, None]
            scores = candidates.scores[:, None] - beam_scores[..., None]
        else:
            shape = (num_questions, num_beams, self._vocab_size)
            places, scores = np.zeros(shape, np.int64), np.full(shape, OUT, np.float32)
            alive = np.isfinite(candidates.scores)
            tokens = np.broadcast_to(np.arange(self._vocab_size), shape)
            question, place = np.nonzero(alive)
            beam, token = candidates.beams[alive], candidates.tokens[alive]
            places[question, beam, token] = place
            scores[question, beam, token] = candidates.scores[alive] - beam_scores[question, beam]
        with np.errstate(invalid="ignore"):  # a beam that is dead has no distribution, only -inf
            return places, tokens, warped(scores, self._options)


def draw(scores: FloatArray, noise: NDArray[np.float64], count: int) -> IntArray:
    """Draw ``count`` different places of each distribution [..., N], in the order of the draws.

    Each with probability softmax(scores) among those not drawn yet, by the Gumbel trick with Gumbel
    variables ``noise``; places that are ruled out come last.
    """
    noisy = scores.astype(np.float64) + noise
    order: IntArray = np.argsort(-noisy, kind="stable")[..., :count]
    return order


def _top_p(scores: FloatArray, mass: float, keep: int) -> FloatArray:
    """`TopPLogitsWarper`: the fewest tokens whose probabilities sum to more than ``mass``."""
    order = np.argsort(scores, kind="stable")
    ascending = np.take_along_axis(scores, order, axis=-1)
    below = np.cumsum(np.exp(_normalised(ascending)), axis=-1) <= 1 - mass
    below[..., -keep:] = False
    return _where_sorted(scores, order, below)


def _typical(scores: FloatArray, mass: float, keep: int) -> FloatArray:
    """`TypicalLogitsWarper`: the tokens whose information is nearest the entropy, up to ``mass``."""
    normalised = _normalised(scores)
    with np.errstate(invalid="ignore"):
        information = np.nansum(-np.exp(normalised) * normalised, axis=-1, keepdims=True)
        distance = np.abs(-normalised - information)
    order = np.argsort(distance, kind="stable")
    probabilities = np.exp(_normalised(np.take_along_axis(scores, order, axis=-1)))
    last = np.minimum((np.cumsum(probabilities, axis=-1) < mass).sum(axis=-1), scores.shape[-1] - 1)
    sorted_distance = np.take_along_axis(distance, order, axis=-1)
    beyond = sorted_distance > np.take_along_axis(sorted_distance, last[..., None], axis=-1)
    beyond[..., :keep] = False
    return _where_sorted(scores, order, beyond)


def _where_sorted(scores: FloatArray, order: IntArray, out: NDArray[np.bool_]) -> FloatArray:
    """``scores`` with those ruled out that ``out`` marks in sorted ``order``."""
    marked = np.empty_like(out)
    np.put_along_axis(marked, order, out, axis=-1)
    return np.where(marked, OUT, scores)


def _at_least(scores: FloatArray, smallest: FloatArray) -> FloatArray:
    return np.where(scores >= smallest, scores, OUT)


def _nth_largest(scores: FloatArray, n: int) -> FloatArray:
    n = min(n, scores.shape[-1])
    largest: FloatArray = np.partition(scores, scores.shape[-1] - n)[..., scores.shape[-1] - n, None]
    return largest


def _normalised(scores: FloatArray) -> FloatArray:
    return scores - logsumexp(scores, axis=scores.ndim - 1)[..., None]


def sample(step: SearchStep) -> list[list[Output]]:
    """``num_return_sequences`` independent draws of y from p(y | x) for each of Q questions.

    In the order drawn; the score is the model's log-probability over length ** length_penalty.  Fewer where
    the rules left a draw no token.
    """
    options, (num_questions, n_docs) = step.options, step.log_prior.shape
    count, log_prior = options.num_return_sequences, step.log_prior
    sampler = Sampler(options, num_questions, step.vocab_size)
    running = Beams.started(num_questions, count, n_docs, options)
    parents = np.zeros((num_questions, count), np.int64)
    done = np.zeros((num_questions, count), np.bool_)
    batch = Batch(num_questions)
    for length in range(1, options.longest):
        none_yet = np.zeros(done.shape, np.float32)  # draws do not compete: their scores are left out
        candidates = step.candidates(
            running.tokens[:, :, :length],
            running.log_probs[:, :, 1:length],
            parents,
            none_yet,
            sampler.needed(count),
        )
        chosen = sampler.one_per_beam(candidates, none_yet)
        continued = running.continued(chosen, length)
        continued.lengths[done] = running.lengths[done]
        stuck = ~done & (chosen.scores == DEAD)
        continued.scores = np.where(stuck, DEAD, running.scores)
        running = continued
        parents = np.arange(count)[None].repeat(len(done), axis=0)
        done |= stuck | np.isin(chosen.tokens, options.eos_token_ids)
        over: BoolArray = np.logical_or(done.all(axis=1), length == options.longest - 1)
        if not leave_now(over):
            continue
        batch.collect(over, running.outputs(count))
        if over.all():
            break
        kept = np.flatnonzero(~over)
        for part in (batch, step, sampler):
            part.keep(kept)
        running, parents, done = running.of_questions(kept), parents[kept], done[kept]
    return [
        [_scored(output, prior, options) for output in outputs]
        for outputs, prior in zip(batch.outputs, log_prior, strict=True)
    ]


def _scored(output: Output, log_prior: NDArray[np.float32], options: GenerationOptions) -> Output:
    weights = token_weights(log_prior, output.log_probs, options.marginalize)[:-1]
    log_prob = float(token_log_probs(weights, output.log_probs).sum())
    return replace(output, score=log_prob / len(output.token_ids) ** options.length_penalty)
