"""What joint fine-tuning trains on: questions and answers as token ids, and their batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from ragengine_train.batching import Tokens, encoder_inputs, padded, tokenized
from ragengine_train.encoders import question_tokens


@dataclass(frozen=True)
class QuestionTokens:
    """Questions as token ids.

    read  as the question encoder reads them
    own   without its prompt, where it has one
    """

    read: Tokens
    own: Tokens | None

    @classmethod
    def of(
        cls, encoder: Any, tokenizer: PreTrainedTokenizerBase, longest: int, texts: Sequence[str]
    ) -> "QuestionTokens":
        """The tokens of ``texts``, at most ``longest`` of each."""
        has_prompt = bool(getattr(encoder, "prompt", ""))
        own = tokenized(tokenizer, longest, texts) if has_prompt else None
        return cls(question_tokens(encoder, tokenizer, longest, texts), own)

    def batch(self, part: slice, pad_token_id: int) -> dict[str, torch.Tensor]:
        """``input_ids`` and ``attention_mask`` [Q, S] of a part; ``own_ids`` [Q, S] where there are any."""
        batch = encoder_inputs(self.read[part], pad_token_id)
        return batch if self.own is None else batch | {"own_ids": padded(self.own[part], pad_token_id)}


class QuestionItems(Dataset[tuple[int, tuple[Sequence[int], ...]]]):
    """Numbers of examples, their questions and answers, token ids, in the order of training."""

    def __init__(
        self,
        questions: QuestionTokens,
        answers: Sequence[Tokens],
        order: Sequence[int],
        choices: Sequence[int],
    ) -> None:
        """``answers``: the right ones of each question; ``choices``: which of them an example trains on."""
        self.questions, self.answers, self.order, self.choices = questions, answers, order, choices

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> tuple[int, tuple[Sequence[int], ...]]:
        index = self.order[number]
        answers = self.answers[index]
        item = self.questions.read[index], answers[self.choices[number] % len(answers)]
        own = self.questions.own
        return index, item if own is None else (*item, own[index])


def collate_questions(question_pad: int, answer_pad: int, decoder_start: int) -> Any:
    """A function from items to ``input_ids`` and ``attention_mask`` [Q, S], and ``labels`` [Q, T].

    ``own_ids`` [Q, S] are the questions without a prompt, where they have one.
    Labels are padded with the generator's pad token, which ``get_nll`` leaves out.  They begin with the
    decoder's start token: RAG models feed them to the decoder as they are and predict from the second on.
    """

    def collate(items: list[tuple[Sequence[int], ...]]) -> dict[str, torch.Tensor]:
        questions, answers, *own = zip(*items, strict=True)
        labels = padded([[decoder_start, *answer] for answer in answers], answer_pad)
        batch = {**encoder_inputs(questions, question_pad), "labels": labels}
        return batch | ({"own_ids": padded(own[0], question_pad)} if own else {})

    return collate


def numbered(collate: Callable[[list[Any]], dict[str, torch.Tensor]]) -> Any:
    """``collate`` for items of :class:`QuestionItems`; ``examples`` [Q] are the numbers of the examples."""

    def collate_numbered(items: list[tuple[int, Any]]) -> dict[str, torch.Tensor]:
        numbers, rows = zip(*items, strict=True)
        return {**collate(list(rows)), "examples": torch.tensor(numbers)}

    return collate_numbered
