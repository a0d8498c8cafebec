"""The oracle: Hugging Face's RagTokenForGeneration with RagRetriever, from question text to answers, in fp32.

Besides what `generate` returns, this records how close each decision of the search was. A difference in the
answer is only excused where HF itself decided by less than `TIE`; see `Margins`. RAG-Sequence is in
`sequence_reference`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from datasets import load_from_disk
from transformers import GenerationConfig, RagRetriever, RagTokenizer
from transformers.generation.configuration_utils import GenerationMode
from transformers.models.rag.retrieval_rag import CustomHFIndex

from ragengine_bench.checkpoints.rag_checkpoint import Checkpoint
from ragengine_bench.parity.margins import NEVER_FOUND, TIE, Margins, RecordingRagToken

__all__ = [
    "TIE",
    "BeamOfOne",
    "Reference",
    "ReferenceAnswer",
    "ReferenceHypothesis",
    "context_arguments",
    "cut_padding",
]


class RecordingRetriever(RagRetriever):
    """RagRetriever that keeps what it returned last, and the question vectors [Q, E] of that call."""

    last: Any = None
    question_vectors: np.ndarray | None = None

    def __call__(
        self, question_input_ids: Any, question_hidden_states: np.ndarray, *args: Any, **kwargs: Any
    ) -> Any:
        self.question_vectors = question_hidden_states
        self.last = super().__call__(question_input_ids, question_hidden_states, *args, **kwargs)
        return self.last


class BeamOfOne(GenerationConfig):
    """A generation config that runs beam search even with one beam, where HF would run greedy search."""

    def get_generation_mode(self, assistant_model: Any = None) -> GenerationMode:
        return GenerationMode.BEAM_SEARCH


@dataclass(frozen=True)
class ReferenceHypothesis:
    """One returned sequence: from after the start token up to and including the end token or max_length."""

    token_ids: list[int]
    score: float
    log_prob: float  # of the processed scores: a forced token counts 0

    @property
    def found(self) -> bool:
        return self.score > NEVER_FOUND and self.log_prob > NEVER_FOUND


@dataclass
class ReferenceAnswer:
    """HF's answer to one question."""

    hypotheses: list[ReferenceHypothesis]
    margin: float
    document_ids: list[str] = field(default_factory=list)
    doc_scores: np.ndarray | None = None  # float32 [D]
    context_input_ids: list[list[int]] = field(default_factory=list)  # [D], without padding
    never_found: int = 0  # RAG-Sequence: candidates that are none
    distorted: bool = False  # and whether they change the scores of the others


def cut_padding(input_ids: np.ndarray, attention_mask: np.ndarray) -> list[list[int]]:
    """The D documents of one question, [D, S], without their padding."""
    return [row[mask != 0].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)]


def context_arguments(
    input_ids: np.ndarray, attention_mask: np.ndarray, doc_scores: np.ndarray
) -> dict[str, torch.Tensor]:
    """Contexts int64 [Q, D, S] twice and float32 [Q, D], as HF's RAG models take them: documents by row."""
    return {
        "context_input_ids": torch.from_numpy(input_ids).flatten(0, 1),
        "context_attention_mask": torch.from_numpy(attention_mask).flatten(0, 1),
        "doc_scores": torch.from_numpy(doc_scores),
    }


class Reference:
    """One checkpoint on HF's side."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.model: RecordingRagToken = RecordingRagToken.from_pretrained(
            checkpoint.source, dtype=torch.float32
        ).eval()
        self.tokenizer = RagTokenizer.from_pretrained(checkpoint.source)
        dataset = load_from_disk(str(checkpoint.dataset))
        dataset.load_faiss_index("embeddings", str(checkpoint.faiss_index))
        config = self.model.config
        self.retriever = RecordingRetriever(
            config,
            question_encoder_tokenizer=self.tokenizer.question_encoder,
            generator_tokenizer=self.tokenizer.generator,
            index=CustomHFIndex(config.retrieval_vector_size, dataset),
        )
        self.model.set_retriever(self.retriever)

    @torch.no_grad()
    def answer(self, questions: list[str], options: dict[str, Any]) -> list[ReferenceAnswer]:
        """Answer a batch from its text, as the model card does."""
        inputs = self.tokenizer(questions, padding=True, return_tensors="pt")
        found = self._generate(
            len(questions), options, input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        )
        ids, mask, doc_scores = self._retrieved(options.get("n_docs", self.model.config.n_docs))
        rows = self.retriever.last["doc_ids"]
        return [
            ReferenceAnswer(
                hypotheses=hypotheses,
                margin=margin,
                document_ids=[self.checkpoint.passages[row].id for row in rows[question].tolist()],
                doc_scores=doc_scores[question],
                context_input_ids=cut_padding(ids[question], mask[question]),
            )
            for question, (hypotheses, margin) in enumerate(found)
        ]

    @torch.no_grad()
    def contexts(self, questions: list[str], n_docs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the generator reads: token ids and mask int64 [Q, D, S], doc_scores float32 [Q, D].

        Padded to the longest document, which HF does not do (it pads to max_combined_length).
        """
        inputs = self.tokenizer(questions, padding=True, return_tensors="pt")
        vectors = self.model.question_encoder(**inputs)[0].numpy()
        self.retriever(inputs["input_ids"], vectors, n_docs=n_docs, return_tensors="pt")
        ids, mask, doc_scores = self._retrieved(n_docs)
        longest = int(mask.sum(axis=-1).max())
        return ids[..., :longest].copy(), mask[..., :longest].copy(), doc_scores

    @torch.no_grad()
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
        found = self._generate(
            n_questions,
            {**options, "n_docs": n_docs},
            **context_arguments(context_input_ids, context_attention_mask, doc_scores),
            **extra,
        )
        return [ReferenceAnswer(hypotheses=hypotheses, margin=margin) for hypotheses, margin in found]

    @torch.no_grad()
    def document_log_probs(
        self,
        context_input_ids: np.ndarray,
        context_attention_mask: np.ndarray,
        doc_scores: np.ndarray,
        token_ids: list[int],
        start_token: int | None = None,
    ) -> np.ndarray:
        """log p(y_t | x, z, y_<t) of one question's answer by every document, teacher-forced: float64 [T, D].

        Contexts are [1, D, S]; `token_ids` has no start token, as everywhere here: the decoder reads
        `start_token` first, the model's own where it is None.
        """
        start = self.model.generation_config.decoder_start_token_id if start_token is None else start_token
        logits = self.model(
            **context_arguments(context_input_ids, context_attention_mask, doc_scores),
            decoder_input_ids=torch.tensor([[start, *token_ids[:-1]]]),
            n_docs=context_input_ids.shape[1],
            use_cache=False,
        ).logits  # [D, T, V]
        chosen = torch.tensor(token_ids).view(1, -1, 1).expand(logits.shape[0], -1, 1)
        return logits.double().log_softmax(-1).gather(-1, chosen).squeeze(-1).T.numpy()

    @torch.no_grad()
    def nll(
        self,
        context_input_ids: np.ndarray,
        context_attention_mask: np.ndarray,
        doc_scores: np.ndarray,
        labels: np.ndarray,
    ) -> np.ndarray:
        """The training loss of every question, without label smoothing: float32 [Q]."""
        return self.model(
            **context_arguments(context_input_ids, context_attention_mask, doc_scores),
            labels=torch.from_numpy(labels),
            n_docs=context_input_ids.shape[1],
        ).loss.numpy()

    def _retrieved(self, n_docs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the retriever returned last, by question: ids and mask [Q, D, S], doc_scores [Q, D]."""
        last, vectors = self.retriever.last, torch.from_numpy(self.retriever.question_vectors)  # [Q, E]
        embeds = last["retrieved_doc_embeds"].float()  # [Q, D, E]
        doc_scores = torch.bmm(vectors.unsqueeze(1), embeds.transpose(1, 2)).squeeze(1)
        shape = (len(vectors), n_docs, -1)
        ids, mask = last["context_input_ids"].view(shape), last["context_attention_mask"].view(shape)
        return ids.numpy(), mask.numpy(), doc_scores.numpy()

    def _generate(
        self, n_questions: int, options: dict[str, Any], **inputs: Any
    ) -> list[tuple[list[ReferenceHypothesis], float]]:
        margins = Margins(n_questions)
        self.model.margins = margins
        wanted = options.get("num_return_sequences", 1)
        if options.get("num_beams", 1) > 1:
            # All that were found, to see how close the first one is that is not returned.
            options = {**options, "num_return_sequences": options["num_beams"]}
        try:
            output = self.model.generate(
                **inputs, **options, return_dict_in_generate=True, output_scores=True
            )
        finally:
            self.model.margins = None
        sequences = [self.cut(row, options) for row in output.sequences[:, 1:].tolist()]
        penalty = options.get("length_penalty", 1.0)
        if getattr(output, "sequences_scores", None) is None:
            hypotheses = [
                self._greedy(tokens, [step[row] for step in output.scores], penalty, row, margins)
                for row, tokens in enumerate(sequences)
            ]
        else:
            scores = output.sequences_scores.tolist()
            hypotheses = [
                ReferenceHypothesis(tokens, score, score * len(tokens) ** penalty)
                for tokens, score in zip(sequences, scores, strict=True)
            ]
        per_question = len(hypotheses) // n_questions
        answers = []
        for question in range(n_questions):
            own = hypotheses[question * per_question : (question + 1) * per_question]
            for better, worse in pairwise(own[: wanted + 1]):
                if worse.found:
                    margins.note(question, better.score - worse.score)
            answers.append((own[:wanted], margins.smallest[question]))
        return answers

    def cut(self, tokens: list[int], options: dict[str, Any]) -> list[int]:
        """Up to and including the first end token; HF's padding follows. A pad before it is a token."""
        eos = options.get("eos_token_id", self.model.generation_config.eos_token_id)
        ends = [place for place, token in enumerate(tokens) if token in np.atleast_1d(eos)]
        return tokens[: ends[0] + 1] if ends else tokens

    @staticmethod
    def _greedy(
        tokens: list[int], steps: list[torch.Tensor], penalty: float, question: int, margins: Margins
    ) -> ReferenceHypothesis:
        """Greedy search returns no sequence score: sum the marginal log-probabilities [V] of its steps."""
        log_prob = 0.0
        for token, step in zip(tokens, steps, strict=False):
            log_prob += float(step[token])
            best = torch.topk(step, 2)[0].tolist()
            margins.note(question, best[0] - best[1])
        return ReferenceHypothesis(tokens, log_prob / len(tokens) ** penalty, log_prob)
