"""The oracle of RAG-Sequence: Hugging Face's RagSequenceForGeneration, thorough decoding, in fp32.

It is called so that its answer is that of the paper and of its own documentation, where
transformers 5.23 departs from both:

* the search by document reads the *generator's* generation config, not the RAG model's: what the RAG model's
  says (forced tokens, the longest answer) is handed over as arguments;
* that search passes no attention mask; see `RecordsSearches.generate`;
* rescoring ignores `n_docs` and takes `config.n_docs`: that is set to D for the call;
* `num_return_sequences` larger than the number of distinct candidates is an error: called again with 1;
* places of a beam that never held a hypothesis become candidates of padding, whose loss is 0 or log D, less
  than any real one's. They are left out of the ranking. Where their mere presence changes how the others are
  scored (`exclude_bos_score` applies if *all* candidates begin with BOS) the answer is marked `distorted`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from transformers import RagSequenceForGeneration

from ragengine_bench.parity.margins import DocumentSearch, RecordsSearches, record_searches
from ragengine_bench.parity.reference import (
    Reference,
    ReferenceAnswer,
    ReferenceHypothesis,
    context_arguments,
    cut_padding,
)

# What a search reads from a generation config, if the call does not say it.
DEFAULTS = ("forced_bos_token_id", "forced_eos_token_id", "eos_token_id", "decoder_start_token_id")
MAX_LENGTH = 20  # of RAG-Token where nothing says another; RAG-Sequence's would be 21


class RecordingRagSequence(RagSequenceForGeneration):
    """RagSequenceForGeneration that keeps each question's candidates int64 [N, T] and their losses [N]."""

    rescored: list[tuple[torch.Tensor, torch.Tensor]]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        if kwargs.get("labels") is not None:
            self.rescored.append((kwargs["labels"], output.loss))
        return output


class SequenceReference:
    """The same weights and the same retriever as a RAG-Sequence model."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        with torch.device("meta"):
            model = RecordingRagSequence(config=reference.model.config)
        model.rag = reference.model.rag
        record_searches(model.rag.generator)
        if not hasattr(model.config.generator, "bos_token_id"):
            model.config.generator.bos_token_id = None  # `get_nll` reads it, T5's config has none
        self.model = model.eval()

    def answer(self, questions: list[str], options: dict[str, Any]) -> list[ReferenceAnswer]:
        """Answer a batch from its text; `generate` retrieves, and retrieves again for every candidate."""
        n_docs = options.get("n_docs", self.model.config.n_docs)
        inputs = self.reference.tokenizer(questions, padding=True, return_tensors="pt")
        ids, mask, doc_scores = self.reference.contexts(questions, n_docs)
        rows = self.reference.retriever.last["doc_ids"]
        found = self._generate(
            len(questions),
            n_docs,
            options,
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
        )
        for question, answer in enumerate(found):
            passages = self.reference.checkpoint.passages
            answer.document_ids.extend(passages[row].id for row in rows[question].tolist())
            answer.doc_scores = doc_scores[question]
            answer.context_input_ids.extend(cut_padding(ids[question], mask[question]))
        return found

    def decode(
        self,
        context_input_ids: np.ndarray,
        context_attention_mask: np.ndarray,
        doc_scores: np.ndarray,
        options: dict[str, Any],
        **extra: Any,
    ) -> list[ReferenceAnswer]:
        """Generate from given contexts, int64 [Q, D, S] twice and float32 [Q, D]."""
        n_questions, n_docs, _ = context_input_ids.shape
        return self._generate(
            n_questions,
            n_docs,
            options,
            **context_arguments(context_input_ids, context_attention_mask, doc_scores),
            **extra,
        )

    @torch.no_grad()
    def nll(
        self,
        context_input_ids: np.ndarray,
        context_attention_mask: np.ndarray,
        doc_scores: np.ndarray,
        labels: np.ndarray,
        exclude_bos_score: bool,
    ) -> np.ndarray:
        """The training loss of every question, without label smoothing: float32 [Q]."""
        self.model.rescored = []
        return self.model(
            **context_arguments(context_input_ids, context_attention_mask, doc_scores),
            labels=torch.from_numpy(labels),
            exclude_bos_score=exclude_bos_score,
            n_docs=context_input_ids.shape[1],
        ).loss.numpy()

    def document_beams(
        self, context_input_ids: np.ndarray, context_attention_mask: np.ndarray, **options: Any
    ) -> list[list[list[int]]]:
        """Y(z) of one question's documents, contexts [1, D, S]: for each the outputs of its own search."""
        generator = self._watched()
        ids, mask = torch.from_numpy(context_input_ids[0]), torch.from_numpy(context_attention_mask[0])
        beams = options["num_beams"]
        generator.generate(ids, mask, **(self._defaults() | options), num_return_sequences=beams)
        (search,) = generator.calls
        rows = [
            self.reference.cut(row[1:], options) if found else None
            for row, found in zip(search.sequences.tolist(), search.found.tolist(), strict=True)
        ]
        return [
            [row for row in rows[start : start + beams] if row is not None]
            for start in range(0, len(rows), beams)
        ]

    @torch.no_grad()
    def _generate(
        self, n_questions: int, n_docs: int, options: dict[str, Any], **inputs: Any
    ) -> list[ReferenceAnswer]:
        wanted = options.get("num_return_sequences", 1)
        config, usual = self.model.config, self.model.config.n_docs
        config.n_docs = n_docs
        try:
            for returned in (wanted, 1):
                generator, self.model.rescored = self._watched(), []
                arguments = self._defaults() | options | {"n_docs": n_docs, "num_return_sequences": returned}
                try:
                    output = self.model.generate(**inputs, **arguments)
                except RuntimeError as error:
                    if "out of range" not in str(error):
                        raise
                else:
                    break
        finally:
            config.n_docs = usual
        rows = output.view(n_questions, returned, -1).tolist()
        return [
            self._ranked(search, *rescored, returned=own, options=options)
            for search, rescored, own in zip(generator.calls, self.model.rescored, rows, strict=True)
        ]

    def _ranked(
        self,
        search: DocumentSearch,
        labels: torch.Tensor,
        losses: torch.Tensor,
        *,
        returned: list[list[int]],
        options: dict[str, Any],
    ) -> ReferenceAnswer:
        """HF's candidates in HF's order, those left out that it never found."""
        wanted = options.get("num_return_sequences", 1)
        rows = labels.tolist()
        best = torch.topk(-losses, len(returned))[1].tolist()
        for row, place in zip(returned, best, strict=True):
            assert row[: labels.shape[1]] == rows[place], "the losses recorded are not those of the ranking"
        if options.get("do_deduplication", True):
            real = {tuple(row) for row in search.sequences[search.found].tolist()}
            found = [tuple(row) in real for row in rows]
        else:
            found = search.found.tolist()
        bos = self.model.config.generator.bos_token_id
        begins = [row[1] == bos for row in rows]
        distorted = all(begins) != all(b for b, f in zip(begins, found, strict=True) if f)
        ranked = [place for place in torch.argsort(losses, stable=True).tolist() if found[place]]
        margin = search.margin
        for better, worse in pairwise(ranked[: wanted + 1]):
            if rows[better] != rows[worse]:
                margin = min(margin, float(losses[worse] - losses[better]))
        hypotheses = [
            ReferenceHypothesis(self.reference.cut(rows[place][1:], options), -loss, -loss)
            for place in ranked[:wanted]
            for loss in [float(losses[place])]
        ]
        return ReferenceAnswer(
            hypotheses=hypotheses, margin=margin, never_found=found.count(False), distorted=distorted
        )

    def _watched(self) -> RecordsSearches:
        generator: RecordsSearches = self.model.rag.generator
        generator.calls = []
        return generator

    def _defaults(self) -> dict[str, Any]:
        config = self.reference.model.generation_config
        given = {name: getattr(config, name) for name in DEFAULTS}
        return given | {"max_length": config.max_length or MAX_LENGTH}
