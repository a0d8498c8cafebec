"""The search that a set of options asks for, and the hypotheses that it returns."""

from dataclasses import replace
from functools import partial

from ragengine.arrays import FloatArray
from ragengine.generation.decoders.base import EncodedDocuments
from ragengine.generation.model import GeneratorModel
from ragengine.generation.search.beam_search import beam_search
from ragengine.generation.search.lookahead import search_step
from ragengine.generation.search.outputs import Output, hypothesis
from ragengine.generation.search.rag_sequence import fast, search_by_document, thorough
from ragengine.generation.search.rules import Rules
from ragengine.generation.search.sampling import sample
from ragengine.generation.search.step import SearchStep, Watch
from ragengine.options import GenerationOptions
from ragengine.results import Hypothesis
from ragengine.runtime.cancellation import Stop


def search(
    model: GeneratorModel,
    encoded: EncodedDocuments,
    log_prior: FloatArray,
    rules: Rules,
    stop: Stop,
    watch: Watch | None = None,
) -> list[list[Hypothesis]]:
    """The best outputs of each question under ``rules.options``.

    Args:
        model: the generator.
        encoded: the documents as its encoder has read them.
        log_prior: log p(z | x) of the documents, float32 [Q, D].
        rules: what may be generated, and how it is searched for.
        stop: ends the search between two steps.
        watch: sees every step of a search over the documents' mixture.

    Returns:
        The outputs of each question, best first; none where the rules leave none.
    """
    found = partial(_found, model, encoded, log_prior, rules, stop, watch)
    # a function of the caller's runs in the caller's thread
    return found() if rules.allowed_tokens else model.run_search(found)


def _found(
    model: GeneratorModel,
    encoded: EncodedDocuments,
    log_prior: FloatArray,
    rules: Rules,
    stop: Stop,
    watch: Watch | None,
) -> list[list[Hypothesis]]:
    """:func:`search`, in this thread."""
    options = rules.options
    joint = options.marginalize == "sequence" and options.search == "joint"
    if options.marginalize == "token" or joint:
        found = _over_the_marginal(
            search_step(model, encoded, log_prior, _all_beams(rules, joint), stop, watch)
        )
    else:
        by_document = search_by_document(model, encoded, rules, stop)
        if options.search == "fast":
            found = fast(by_document, log_prior, options)
        else:
            found = thorough(model, encoded, by_document, log_prior, options, stop)
    hypotheses = [
        [hypothesis(output, log_prior[question], options.marginalize) for output in outputs]
        for question, outputs in enumerate(found)
    ]
    return [_by_likelihood(outputs, options) for outputs in hypotheses] if joint else hypotheses


def _over_the_marginal(step: SearchStep) -> list[list[Output]]:
    """One search over log Σ_z weight(z) p(y_t | x, z, y_<t): RAG-Token, and RAG-Sequence jointly."""
    draws = step.options.do_sample and step.options.num_beams == 1
    return sample(step) if draws else beam_search(step)


def _all_beams(rules: Rules, joint: bool) -> Rules:
    """Rules whose search returns all its beams, where the best are chosen at the end, by their likelihood."""
    options = rules.options
    if not joint or (options.do_sample and options.num_beams == 1):
        return rules
    return replace(rules, options=replace(options, num_return_sequences=options.num_beams))


def _by_likelihood(hypotheses: list[Hypothesis], options: GenerationOptions) -> list[Hypothesis]:
    """The joint search ranks and scores what it found by log p(y | x), as the thorough one does."""
    ranked = sorted(hypotheses, key=lambda h: -h.log_prob)[: options.num_return_sequences]
    return [replace(h, score=h.log_prob) for h in ranked]
