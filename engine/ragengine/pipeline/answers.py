"""From the generator's hypotheses to an :class:`Answer` that says where it came from."""

import math
from dataclasses import replace

from ragengine.arrays import IntArray
from ragengine.bundle.manifest import RagSpec
from ragengine.grounding.citations import cite
from ragengine.options import GenerationOptions
from ragengine.pipeline.prompts import Prompts
from ragengine.results import Answer, Hypothesis, document_shares
from ragengine.retrieval.passage_filter import PassageFilter
from ragengine.tokenization import Tokenizer

_TRAINED_FOR = {"RagTokenForGeneration": "token", "RagSequenceForGeneration": "sequence"}
_HALF = math.log(0.5)


def build_answer(
    question: str,
    number: int,
    prompts: Prompts,
    hypotheses: list[Hypothesis],
    options: GenerationOptions,
    *,
    tokenizer: Tokenizer,
    rag: RagSpec,
    timings_ms: dict[str, float],
    doc_pruning: float | None,
    own_documents: bool,
    passages: PassageFilter | None = None,
    read: IntArray | None = None,
    constrained: bool = False,
) -> Answer:
    """The answer to question ``number`` of ``prompts``; ``hypotheses`` are at least one, best first.

    ``read`` are the places of the documents that it took; None: all that were selected.  ``constrained`` is
    whether the caller chose among the tokens.
    """
    documents, pruned = prompts.selected.of_question(number, read)
    count = len(documents)
    found = tuple(replace(h, token_posteriors=h.token_posteriors[:, :count]) for h in hypotheses)
    trained_for = _TRAINED_FOR[rag.architecture]
    flags = {
        "question_truncated": prompts.truncated[number],
        "fewer_documents": count + len(pruned) < options.n_docs,
        "documents_pruned": bool(pruned),
        "max_length_reached": _cut_off(found[0], options),
        f"trained_for_{trained_for}": options.marginalize != trained_for,
    }
    shares = document_shares(found[0].token_posteriors, options.marginalize).tolist()
    shown = tuple(replace(d, posterior=share) for d, share in zip(documents, shares, strict=True))
    raw_texts = tuple(tokenizer.decode(h.token_ids.tolist()) for h in found)
    texts = tuple(text.lstrip() for text in raw_texts)
    return Answer(
        question=question,
        texts=texts,
        documents=shown,
        hypotheses=found,
        tokens=tuple(tokenizer.token_texts(found[0].token_ids.tolist())),
        flags=tuple(flag for flag, raised in flags.items() if raised),
        timings_ms=timings_ms,
        options=options,
        doc_pruning=doc_pruning,
        pruned=tuple(pruned),
        own_documents=own_documents,
        filter=None if passages is None else passages.to_dict(),
        raw_texts=raw_texts,
        citations=cite(texts[0], question, shown),
        adaptive_reading=read is not None,
        constrained=constrained,
    )


def _cut_off(hypothesis: Hypothesis, options: GenerationOptions) -> bool:
    """Whether the length limit ended an answer, not the model.

    At the limit ``forced_eos_token_id`` puts an end token whatever its probability; the model ended the
    answer itself where that was at least one half, so that no other token could have been likelier.
    """
    if len(hypothesis.token_ids) < options.longest - 1:
        return False
    if hypothesis.token_ids[-1] not in options.eos_token_ids:
        return True
    forced = options.forced_eos_token_id is not None
    return forced and float(hypothesis.token_log_probs[-1]) < _HALF
