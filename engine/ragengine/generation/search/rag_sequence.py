"""RAG-Sequence's two searches by document (paper, section 2.5); the joint one is :mod:`.beam_search`.

    thorough:  y ∈ ∪_z Y(z),  p(y|x) = Σ_z p(z|x) p(y|x,z)             every candidate under every document
    fast:      y ∈ ∪_z Y(z),  p(y|x) ≈ Σ_{z: y ∈ Y(z)} p(z|x) p(y|x,z)  only where the document's beam found y

Y(z) are the outputs of a beam search over document z alone: the graph of RAG-Token with Q·D questions of one
document each.
"""

from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import FloatArray
from ragengine.generation.decoders.base import EncodedDocuments
from ragengine.generation.marginalization import logsumexp
from ragengine.generation.model import GeneratorModel
from ragengine.generation.search.beam_search import beam_search
from ragengine.generation.search.likelihood import sequence_log_likelihood
from ragengine.generation.search.outputs import Output
from ragengine.generation.search.prefix_trie import output_log_probs
from ragengine.generation.search.rules import Rules
from ragengine.generation.search.sampling import sample
from ragengine.generation.search.step import SearchStep
from ragengine.options import GenerationOptions
from ragengine.runtime.cancellation import NEVER, Stop

Found: TypeAlias = list[list[Output]]
"""For each document of a question the outputs its own search found, best first."""


def search_by_document(
    model: GeneratorModel, encoded: EncodedDocuments, rules: Rules, stop: Stop = NEVER
) -> list[Found]:
    """Y(z) for every document of every question, all in one batch: [Q][D][num_beams]."""
    options = rules.options
    alone = replace(
        options,
        marginalize="token",
        num_return_sequences=options.paths,
        min_length=options.shortest,  # RAG-Sequence's: RAG-Token combines the two limits differently
        min_new_tokens=None,
    )
    q, n_docs, _ = encoded.context_attention_mask.shape
    rows = q * n_docs
    log_prior = np.zeros((rows, 1), np.float32)
    step = SearchStep(model, encoded.by_document(), log_prior, rules.by_document(alone, n_docs), stop)
    outputs = sample(step) if options.do_sample and options.num_beams == 1 else beam_search(step)
    return [outputs[start : start + n_docs] for start in range(0, rows, n_docs)]


def thorough(
    model: GeneratorModel,
    encoded: EncodedDocuments,
    found: list[Found],
    log_prior: FloatArray,
    options: GenerationOptions,
    stop: Stop = NEVER,
) -> list[list[Output]]:
    """Every candidate scored under every document, as `RagSequenceForGeneration.generate`.

    The score is what transformers ranks by, the negative of `get_nll` with ``exclude_bos_score``.
    """
    candidates = [_candidates(documents, log_prior[q], options) for q, documents in enumerate(found)]
    starts = [options.decoder_start_token_id] * len(found)
    log_probs = output_log_probs(model, encoded, candidates, starts, stop)
    spec = model.spec
    ranked = []
    for question, outputs in enumerate(candidates):
        bos_first = all(len(y) and y[0] == spec.bos_token_id for y in outputs)
        scored = [
            Output(
                token_ids=tokens,
                score=sequence_log_likelihood(
                    log_prior[question], given, tokens, spec.pad_token_id,
                    skip_first=options.exclude_bos_score and bos_first,
                ),
                log_probs=given,
            )
            for tokens, given in zip(outputs, log_probs[question], strict=True)
        ]  # fmt: skip
        ranked.append(sorted(scored, key=lambda output: -output.score)[: options.num_return_sequences])
    return ranked


def fast(found: list[Found], log_prior: FloatArray, options: GenerationOptions) -> list[list[Output]]:
    """Every candidate scored under the documents whose beams found it; the others contribute nothing."""
    ranked = []
    for question, documents in enumerate(found):
        log_probs: dict[tuple[int, ...], FloatArray] = {}
        for place, outputs in enumerate(documents):
            for output in outputs:
                tokens = tuple(output.token_ids.tolist())
                empty = np.full((len(tokens), len(documents)), -np.inf, np.float32)
                log_probs.setdefault(tokens, empty)[:, place] = output.log_probs[:, 0]
        scored = [
            Output(np.array(tokens, np.int64), _log_sum(log_prior[question], given), given)
            for tokens, given in log_probs.items()
        ]
        possible = [output for output in scored if np.isfinite(output.score)]
        ranked.append(sorted(possible, key=lambda output: -output.score)[: options.num_return_sequences])
    return ranked


def _candidates(found: Found, log_prior: FloatArray, options: GenerationOptions) -> list[NDArray[np.int64]]:
    """The outputs of all documents that have a prior, in their order; each once with ``do_deduplication``."""
    outputs = [
        o.token_ids for prior, own in zip(log_prior, found, strict=True) if np.isfinite(prior) for o in own
    ]
    if not options.do_deduplication:
        return outputs
    return list({tuple(tokens.tolist()): tokens for tokens in outputs}.values())


def _log_sum(log_prior: FloatArray, log_probs: FloatArray) -> float:
    return float(logsumexp(log_prior + log_probs.sum(axis=0), axis=0))
