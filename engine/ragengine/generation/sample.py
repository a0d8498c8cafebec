"""Multinomial sampling (`GenerationMixin._sample` with ``do_sample``), and the tokens of one greedy path."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ragengine.generation.beams import Beams
from ragengine.generation.candidates import DEAD, Candidates
from ragengine.generation.mixture import token_log_probs, token_weights
from ragengine.generation.outputs import Output, no_output
from ragengine.generation.sampling import Sampler
from ragengine.generation.stepper import Stepper
from ragengine.options import GenerationOptions


def sample(stepper: Stepper) -> list[list[Output]]:
    """``num_return_sequences`` independent draws of y from p(y | x) for each of Q questions.

    In the order drawn; the score is the model's log-probability over length ** length_penalty.  Fewer where
    the rules left a draw no token.
    """
    options, (num_questions, n_docs) = stepper.options, stepper.log_prior.shape
    count = options.num_return_sequences
    sampler = Sampler(options, num_questions, stepper.vocab_size)
    running = Beams.started(num_questions, count, n_docs, options)
    parents = np.zeros((num_questions, count), np.int64)
    done = np.zeros((num_questions, count), np.bool_)
    for length in range(1, options.longest):
        candidates = stepper.step(
            running.tokens[:, :, :length],
            running.log_probs[:, :, 1:length],
            parents,
            np.zeros((num_questions, count), np.float32),
            sampler.needed(count),
        )
        chosen = sampler.one_per_beam(candidates, np.zeros((num_questions, count), np.float32))
        continued = running.continued(chosen, length)
        continued.lengths[done] = running.lengths[done]
        stuck = ~done & (chosen.scores == DEAD)
        continued.scores = np.where(stuck, DEAD, running.scores)
        running = continued
        parents = np.arange(count)[None].repeat(num_questions, axis=0)
        done |= stuck | np.isin(chosen.tokens, options.eos_token_ids)
        if done.all():
            break
    return [
        [_scored(output, prior, options) for output in outputs]
        for outputs, prior in zip(running.outputs(count), stepper.log_prior, strict=True)
    ]


def _scored(output: Output, log_prior: NDArray[np.float32], options: GenerationOptions) -> Output:
    weights = token_weights(log_prior, output.log_probs, options.marginalize)[:-1]
    log_prob = float(token_log_probs(weights, output.log_probs).sum())
    return replace(output, score=log_prob / len(output.token_ids) ** options.length_penalty)


def greedy_tokens(stepper: Stepper) -> Iterator[Candidates]:
    """The tokens of a greedy search of one question, each as it is found.

    Raises :class:`OptionsError` where the rules leave no token.
    """
    options, (num_questions, n_docs) = stepper.options, stepper.log_prior.shape
    running = Beams.started(num_questions, 1, n_docs, options)
    parents = np.zeros((num_questions, 1), np.int64)
    for length in range(1, options.longest):
        candidates = stepper.step(
            running.tokens[:, :, :length], running.log_probs[:, :, 1:length], parents, running.scores, 2
        )
        chosen = candidates.best(1)
        if (chosen.scores == DEAD).any():
            raise no_output(0)
        running = running.continued(chosen, length)
        yield chosen
        if np.isin(chosen.tokens, options.eos_token_ids).all():
            return
