"""Greedy search that gives each token as it is found, for answers that stream."""

from collections.abc import Generator

import numpy as np

from ragengine.generation.marginalization import beam_weights, token_log_probs, token_posteriors
from ragengine.generation.search.beams import Beams
from ragengine.generation.search.candidates import DEAD
from ragengine.generation.search.outputs import StreamedToken, no_output
from ragengine.generation.search.step import SearchStep


def greedy_tokens(step: SearchStep) -> Generator[StreamedToken, None, None]:
    """The tokens of a greedy search of one question.

    Raises :class:`OptionsError` where the rules leave no token.
    """
    options, n_docs = step.options, step.log_prior.shape[1]
    running = Beams.started(1, 1, n_docs, options)
    parents = np.zeros((1, 1), np.int64)
    log_prob = 0.0  # log p(y_<=t | x), which joint decoding ranks by
    for length in range(1, options.longest):
        past = running.log_probs[:, :, 1:length]
        chosen = step.candidates(running.tokens[:, :, :length], past, parents, running.scores, 2).best(1)
        if (chosen.scores == DEAD).any():
            raise no_output(0)
        weights = beam_weights(step.log_prior, past, options.marginalize)[0, :, 0]
        log_probs = chosen.log_probs[0, :, 0]
        token_id, token_log_prob = int(chosen.tokens[0, 0]), float(token_log_probs(weights, log_probs))
        log_prob += token_log_prob
        penalised = chosen.scores[0, 0] / np.float32(length**options.length_penalty)
        yield StreamedToken(
            token_id=token_id,
            log_prob=token_log_prob,
            posterior=token_posteriors(weights[None], log_probs[None])[0],
            score=log_prob if options.marginalize == "sequence" else float(penalised),
        )
        if token_id in options.eos_token_ids:
            return
        running = running.continued(chosen, length)
