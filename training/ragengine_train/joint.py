"""Joint fine-tuning: -log p(y | x), marginal over the documents that are retrieved now (paper, section 2.4).

Question encoder and generator learn; the passage encoder and its index stay as they are.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from ragengine_train.batches import Tokens, encoder_inputs, padded
from ragengine_train.stage import StageTrainer


class QuestionItems(Dataset[tuple[Sequence[int], Sequence[int]]]):
    """Questions and answers, token ids, in the order of training; no passage is given."""

    def __init__(
        self, questions: Tokens, answers: Sequence[Tokens], order: Sequence[int], choices: Sequence[int]
    ) -> None:
        """``answers`` has for every question those that count as right, ``choices`` which one it is when."""
        self.questions, self.answers, self.order, self.choices = questions, answers, order, choices

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> tuple[Sequence[int], Sequence[int]]:
        index = self.order[number]
        answers = self.answers[index]
        return self.questions[index], answers[self.choices[number] % len(answers)]


def collate_questions(question_pad: int, answer_pad: int, decoder_start: int) -> Any:
    """A function from items to ``input_ids`` and ``attention_mask`` [Q, S], and ``labels`` [Q, T].

    Labels are padded with the generator's pad token, which ``get_nll`` leaves out.  They begin with the
    decoder's start token: RAG models feed them to the decoder as they are and predict from the second on.
    """

    def collate(items: list[tuple[Sequence[int], Sequence[int]]]) -> dict[str, torch.Tensor]:
        questions, answers = zip(*items, strict=True)
        labels = padded([[decoder_start, *answer] for answer in answers], answer_pad)
        return {**encoder_inputs(questions, question_pad), "labels": labels}

    return collate


def marginal_nll(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """-log p(y | x) of each question, float32 [Q], with documents found by ``model.retriever``.

    The three steps are those of ``RagModel.forward``.  They are here because doc_scores must not be computed
    under autocast: in bfloat16 the scores of two documents, 40.0 and 40.1, are one number.
    """
    vectors = model.question_encoder(input_ids, attention_mask=attention_mask, return_dict=True)[0].float()
    found = model.retriever(input_ids, vectors.detach().cpu().numpy(), return_tensors="pt").to(
        input_ids.device
    )
    with torch.autocast(input_ids.device.type, enabled=False):
        doc_scores = torch.einsum("qe,qde->qd", vectors, found["retrieved_doc_embeds"].float())
    output = model(
        context_input_ids=found["context_input_ids"],
        context_attention_mask=found["context_attention_mask"],
        doc_scores=doc_scores,
        labels=labels,
        reduce_loss=False,
    )
    loss: torch.Tensor = output.loss
    return loss


class MarginalTrainer(StageTrainer):
    """The Trainer on the mean of :func:`marginal_nll`."""

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """The batch's loss."""
        return marginal_nll(model, **inputs).mean()
