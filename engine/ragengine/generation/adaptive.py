"""Greedy RAG-Token that reads a document only while its prior could change a token.

docs/concepts/adaptive-reading.md has the proof.  Documents are read in the order of p(z | x).  While the
prior of those that were not read is m, every token's probability is known up to m; a token is certain where
its own is more than m above that of every other one.  Where one is not, documents are read until their prior
would be less than the difference, and the search begins again.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import FloatArray, IntArray
from ragengine.errors import OptionsError
from ragengine.generation.contexts import Contexts
from ragengine.generation.marginalization import logsumexp
from ragengine.generation.model import GeneratorModel
from ragengine.generation.search.candidates import DEAD, Candidates
from ragengine.generation.search.rules import Rules, StepRules
from ragengine.generation.search.search import search
from ragengine.options import GenerationOptions
from ragengine.results import Hypothesis
from ragengine.runtime.cancellation import Stop

_ROUNDING: Final = 1e-5
"""How far apart float32 may compute a probability from the same documents in another batch."""


@dataclass(frozen=True, eq=False)
class AdaptivelyRead:
    """The hypotheses of one question, and the places of the documents that were read, best first."""

    hypotheses: list[Hypothesis]
    documents: IntArray


class _Uncertain(Exception):
    """A token that documents which were not read could change; ``gap`` is how likely another one may be."""

    def __init__(self, gap: float) -> None:
        super().__init__(gap)
        self.gap = gap


def check_adaptive(options: GenerationOptions) -> None:
    """Refuse a search whose tokens depend on more than their probabilities.

    Raises:
        OptionsError: the message names the options.
    """
    greedy = options.num_beams == 1 and not options.do_sample and options.marginalize == "token"
    if not greedy or options.repetition_penalty != 1.0:
        raise OptionsError(
            f"adaptive_reading cannot follow num_beams={options.num_beams}, do_sample={options.do_sample}, "
            f"marginalize={options.marginalize!r}, repetition_penalty={options.repetition_penalty}; use "
            "num_beams=1, RAG-Token, no sampling and no repetition_penalty."
        )


def generate_adaptively(
    model: GeneratorModel, contexts: Contexts, rules: Rules, stop: Stop
) -> AdaptivelyRead:
    """The output of one question whose options are those of :func:`check_adaptive`."""
    log_prior = contexts.log_prior[0]
    order = np.argsort(-log_prior, kind="stable")
    order = order[np.isfinite(log_prior[order])]  # the others are padding, or left out by their score
    unread = _unread(np.exp(log_prior[order].astype(np.float64)))
    count = int(np.argmax(unread < 0.5))  # with more no token can be certain
    read = order[:count]
    encoded = model.encode_documents(contexts.input_ids[:, read], contexts.attention_mask[:, read], stop)
    while True:
        certain = _Certain(unread[count]) if count < len(order) else None
        normalised = log_prior[read] - logsumexp(log_prior[None, read], axis=1)
        try:
            (found,) = search(model, encoded, normalised[None], rules, stop, watch=certain)
            return AdaptivelyRead(found, read)
        except _Uncertain as reason:
            more = max(count + 1, int(np.argmax(unread < reason.gap)) if reason.gap > 0 else len(order))
        added = order[count:more]
        encoded = encoded.joined(
            model.encode_documents(contexts.input_ids[:, added], contexts.attention_mask[:, added], stop)
        )
        count, read = more, order[:more]


def _unread(priors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The prior of all documents after the first 0, 1, ... D, [D + 1]."""
    return np.append(np.cumsum(priors[::-1])[::-1], 0.0)


class _Certain:
    """Raises :class:`_Uncertain` at a step whose best token documents of this prior could change."""

    def __init__(self, unread: float) -> None:
        self._unread = unread

    def __call__(self, candidates: Candidates, rules: StepRules, beam_scores: FloatArray) -> None:
        if rules.forced is not None:
            return
        best = candidates.best(2).scores[0].astype(np.float64) - beam_scores[0, 0]
        first, second = np.where(best == DEAD, 0.0, np.exp(best)) * (1 - self._unread)
        gap = float(first - second) - _ROUNDING
        if gap <= self._unread:
            raise _Uncertain(gap)
