"""What the joint stage minimises: -log p(y | x), DPR's loss over the passages that are found, or both.

p(z | x) of a question is the softmax of q·d over the documents that the current index finds.  Where the
passage encoder learns, these documents are encoded again with it (as in rag-end2end-retriever), so that their
scores are those of the networks as they are now, and both learn from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.profiler import record_function

from ragengine_train.batching import full_precision
from ragengine_train.config import JointConfig
from ragengine_train.data import Example, TrainingPassages
from ragengine_train.encoders import dpr_loss, other_right, right_passages
from ragengine_train.passage_vectors import PassageVectors, StoredVectors
from ragengine_train.processes import gather_each, stack


@dataclass(frozen=True)
class Retrieved:
    """The documents of questions, and the vectors that are compared.

    questions  float32 [Q, E]
    documents  rows of the documents, int64 [Q, D]
    pool       the rows of the passages that have a vector here, in order: P of them
    vectors    their vectors, float32 [P, E]
    indexed    scores of the documents by the vectors of the index, float32 [Q, D]
    prompts    ``context_input_ids`` and ``context_attention_mask`` [Q*D, S]; empty where nobody reads them
    """

    questions: torch.Tensor
    documents: np.ndarray[Any, np.dtype[np.int64]]
    pool: list[int]
    vectors: torch.Tensor
    indexed: torch.Tensor
    prompts: dict[str, torch.Tensor] = field(default_factory=dict)

    def scores(self) -> torch.Tensor:
        """q·d of each question and its documents, float32 [Q, D].

        Not computed under autocast: in bfloat16 the scores of two documents, 40.0 and 40.1, are one number.
        """
        places = torch.from_numpy(np.searchsorted(self.pool, self.documents)).to(self.vectors.device)
        with torch.autocast(self.questions.device.type, enabled=False):
            return torch.einsum("qe,qde->qd", self.questions, self.vectors[places])

    def index_agreement(self) -> float:
        """Share of the questions whose best document is the same by the index and by :meth:`scores`."""
        now = self.scores().detach().argmax(1).cpu()
        return float((now == self.indexed.argmax(1)).float().mean())


def retrieved(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    own_ids: torch.Tensor | None = None,
    *,
    passages: PassageVectors | None = None,
    gold: Sequence[int] = (),
    prompts: bool = True,
) -> Retrieved:
    """The documents that ``model.retriever`` finds for questions [Q, S].

    The three steps are those of ``RagModel.forward``; they are here because scores must not be computed under
    autocast, and so that a passage that several questions find is encoded once.

    Args:
        model: a RAG model.
        input_ids: the questions as the question encoder reads them.
        attention_mask: of ``input_ids``.
        own_ids: the questions as the generator reads them, where the encoder reads them after a prompt.
        passages: gives the vectors; those of the index where None.
        gold: rows of further passages whose vectors are needed.
        prompts: whether the generator will read the documents.
    """
    retriever = model.retriever
    with record_function("encode questions"):
        output = model.question_encoder(input_ids, attention_mask=attention_mask, return_dict=True)
    questions = full_precision(output[0])
    read = input_ids if own_ids is None else own_ids
    asked = questions.detach().float().cpu().numpy()
    with record_function("retrieve"):
        if prompts:
            found = retriever(read, asked, return_tensors="pt")
            rows = found["doc_ids"].numpy()
            stored = found["retrieved_doc_embeds"].float()
            inputs = {name: found[name] for name in ("context_input_ids", "context_attention_mask")}
        else:
            rows, vectors_found = retriever.index.get_top_docs(asked, model.config.n_docs)
            stored, inputs = torch.from_numpy(vectors_found), {}
    indexed = torch.einsum("qe,qde->qd", torch.from_numpy(asked), stored)
    pool = sorted({*rows.ravel().tolist(), *gold})
    with record_function("encode passages"):
        vectors = (passages or StoredVectors(retriever))(pool).to(questions)
    prompt = {name: tensor.to(questions.device) for name, tensor in inputs.items()}
    return Retrieved(questions, rows, pool, vectors, indexed, prompt)


def marginal_nll(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    labels: torch.Tensor,
    own_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """-log p(y | x) of each question, float32 [Q], with documents and vectors of ``model.retriever``.

    ``own_ids`` are the questions as the generator reads them, where the encoder reads them after a prompt.

    With ``config.label_smoothing`` it is smoothed, as ``get_nll`` does.
    """
    return read_nll(model, retrieved(model, input_ids, attention_mask, own_ids), labels)


def read_nll(model: Any, found: Retrieved, labels: torch.Tensor) -> torch.Tensor:
    """-log p(y | x) of each question, float32 [Q], marginal over what was found: ``get_nll``."""
    with record_function("generator"):
        output = model(**found.prompts, doc_scores=found.scores(), labels=labels, reduce_loss=False)
    loss: torch.Tensor = output.loss
    return loss


@dataclass(frozen=True)
class JointLoss:
    """The loss of a batch, and its two parts; a part that is not computed is None.

    ``index_agreement`` says how well the index knows the passage encoder, where it learns.
    """

    total: torch.Tensor
    marginal: torch.Tensor | None
    dpr: torch.Tensor | None
    index_agreement: float | None = None


class JointObjective:
    """The mean of -log p(y | x), plus DPR's loss with its weight.

    DPR's negatives are the other questions' gold passages and the documents that are found for any question
    of the batch, without those that are right.  The batch is that of all processes together.
    """

    def __init__(
        self,
        stage: JointConfig,
        corpus: TrainingPassages,
        examples: Sequence[Example],
        passages: PassageVectors | None,
    ) -> None:
        """``passages`` gives the vectors of documents and gold passages; those of the index where None."""
        self._stage, self._passages, self._copy_of = stage, passages, corpus.copy_of
        self._gold: list[int | None] = [None] * len(examples)
        self._right: list[set[int]] = []
        if stage.uses_passages:
            right = right_passages(corpus, examples)
            self._right = [right[example.question] for example in examples]
            # A changed copy of a passage has no vector in the index; its original has one.
            known = len(corpus.passages) if stage.train_context_encoder else corpus.indexed
            for number, example in enumerate(examples):
                rows = () if example.passage is None else (example.passage, corpus.copy_of[example.passage])
                self._gold[number] = next((row for row in rows if row < known), None)

    def __call__(
        self, model: Any, batch: dict[str, torch.Tensor], weight: float, examples: Sequence[int]
    ) -> JointLoss:
        """The loss of the questions ``examples``, with ``weight`` for DPR's part."""
        inputs = dict(batch)
        labels = inputs.pop("labels")
        gold = [self._gold[number] for number in examples]
        found = retrieved(
            model,
            **inputs,
            passages=self._passages,
            gold=[row for row in gold if row is not None],
            prompts=not self._stage.retrieval_only,
        )
        dpr = None
        if self._stage.uses_passages:
            dpr = self._retrieval_loss(found, examples)
        agreement = None if self._passages is None else found.index_agreement()
        if self._stage.retrieval_only:
            assert dpr is not None
            return JointLoss(dpr, None, dpr, agreement)
        marginal = read_nll(model, found, labels).mean()
        total = marginal if dpr is None else marginal + weight * dpr
        return JointLoss(total, marginal, dpr, agreement)

    def _retrieval_loss(self, found: Retrieved, examples: Sequence[int]) -> torch.Tensor:
        """DPR's loss over the questions of all processes that have a gold passage; 0 where none has.

        A passage that several processes have encoded is that of the first one: their vectors are equal.
        """
        parts = stack((found.pool, list(examples)))
        questions = torch.cat(gather_each(found.questions))
        vectors = torch.cat(gather_each(found.vectors))
        made: dict[int, int] = {}  # passages to the places of their vectors
        for number, row in enumerate(row for pool, _ in parts for row in pool):
            made.setdefault(row, number)
        pool = sorted(made)
        place = {row: number for number, row in enumerate(pool)}
        asking = [
            (number, example, gold)
            for number, example in enumerate(example for _, asked in parts for example in asked)
            if (gold := self._gold[example]) is not None
        ]
        if not asking:
            return found.questions.sum() * 0
        labels = torch.tensor([place[gold] for _, _, gold in asking])
        right = [self._right[example] for _, example, _ in asking]
        copies = other_right(right, [self._copy_of[row] for row in pool], labels)
        device = found.questions.device
        return dpr_loss(
            questions[[number for number, _, _ in asking]],
            vectors[[made[row] for row in pool]],
            labels.to(device),
            copies.to(device),
        )
