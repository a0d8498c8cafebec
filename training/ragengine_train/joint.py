"""Joint fine-tuning: -log p(y | x), marginal over the retrieved documents (paper, section 2.4).

Documents are retrieved with the current question encoder.  It and the generator learn; the passage encoder
and its index stay as they are.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import record_function
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase, RagTokenizer

from ragengine_export.tokenization import load_tokenizer
from ragengine_train.batching import Tokens, encoder_inputs, pad, padded, tokenized
from ragengine_train.checkpoint import (
    Parts,
    load_encoder_tokenizer,
    load_rag,
    save_with_tokenizer,
)
from ragengine_train.config import TrainConfig
from ragengine_train.data import TrainingPassages, training_examples
from ragengine_train.dev_metrics import dev_examples
from ragengine_train.dev_samples import DevSet
from ragengine_train.encoders import question_tokens
from ragengine_train.example_order import draw
from ragengine_train.folders import replaced
from ragengine_train.generator import answer_tokens
from ragengine_train.live_retriever import LiveRetriever, OpenIndex, RagengineIndex
from ragengine_train.processes import is_first, share
from ragengine_train.progress import Progress
from ragengine_train.report import write_stage_report
from ragengine_train.trainer import (
    SaveTokenizer,
    StageTrainer,
    examples_a_step,
    freeze,
    through,
    train_stage,
    training_arguments,
)

_BATCH = 16


class QuestionItems(Dataset[tuple[Sequence[int], ...]]):
    """Questions and answers, token ids, in the order of training; no passage is given."""

    def __init__(
        self,
        questions: Tokens,
        answers: Sequence[Tokens],
        order: Sequence[int],
        choices: Sequence[int],
        own: Tokens | None = None,
    ) -> None:
        """``answers``: the right ones of each question; ``choices``: which of them an example trains on.

        ``own``: the questions without the prompt that ``questions`` have, where they have one.
        """
        self.questions, self.answers, self.order, self.choices = questions, answers, order, choices
        self.own = own

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> tuple[Sequence[int], ...]:
        index = self.order[number]
        answers = self.answers[index]
        item = self.questions[index], answers[self.choices[number] % len(answers)]
        return item if self.own is None else (*item, self.own[index])


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


def marginal_nll(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    labels: torch.Tensor,
    own_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """-log p(y | x) of each question, float32 [Q], with documents found by ``model.retriever``.

    ``own_ids`` are the questions as the generator reads them, where the encoder reads them after a prompt.

    With ``config.label_smoothing`` it is smoothed, as ``get_nll`` does.
    """
    found = retrieved(model, input_ids, attention_mask, own_ids)
    with record_function("generator"):
        output = model(**found, labels=labels, reduce_loss=False)
    loss: torch.Tensor = output.loss
    return loss


def retrieved(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, own_ids: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """The documents of questions as a RAG model reads them: tokens and mask [Q*D, S], scores float32 [Q, D].

    The three steps are those of ``RagModel.forward``.  They are here because doc_scores must not be computed
    under autocast: in bfloat16 the scores of two documents, 40.0 and 40.1, are one number.
    """
    with record_function("encode questions"):
        output = model.question_encoder(input_ids, attention_mask=attention_mask, return_dict=True)
    vectors = output[0].float()
    read = input_ids if own_ids is None else own_ids
    with record_function("retrieve"):
        found = model.retriever(read, vectors.detach().cpu().numpy(), return_tensors="pt").to(
            input_ids.device
        )
    with torch.autocast(input_ids.device.type, enabled=False):
        doc_scores = torch.einsum("qe,qde->qd", vectors, found["retrieved_doc_embeds"].float())
    return {
        "context_input_ids": found["context_input_ids"],
        "context_attention_mask": found["context_attention_mask"],
        "doc_scores": doc_scores,
    }


@torch.no_grad()
def joint_answers(
    model: Any, tokenizer: PreTrainedTokenizerBase, questions: Tokens, own: Tokens | None, question_pad: int
) -> list[str]:
    """transformers' answers with the documents that are found now, and with `[model.generation]`."""
    answers: list[str] = []
    config, device = model.generation_config, model.generator.device
    for start in range(0, len(questions), _BATCH):
        part = slice(start, start + _BATCH)
        batch = encoder_inputs(questions[part], question_pad)
        if own is not None:
            batch["own_ids"] = padded(own[part], question_pad)
        found = retrieved(model, **{name: value.to(device) for name, value in batch.items()})
        output = model.generate(
            **found,
            n_docs=model.config.n_docs,
            num_beams=config.num_beams or 1,  # RAG-Sequence does not read the config
            max_length=config.max_length,
        )
        answers += tokenizer.batch_decode(output, skip_special_tokens=True)
    return answers


class MarginalTrainer(StageTrainer):
    """The Trainer on the mean of :func:`marginal_nll`."""

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """The batch's loss."""
        return through(model, self.accelerator.unwrap_model(model), marginal_nll, inputs).mean()


def train_joint(
    config: TrainConfig,
    corpus: TrainingPassages,
    parts: Parts,
    index: Path,
    work: Path,
    target: Path,
    progress: Progress,
    open_index: OpenIndex = RagengineIndex,
) -> None:
    """Joint tuning over ``index``; ``target`` gets ``question_encoder`` and ``generator``."""
    stage, model = config.joint, config.model
    assert stage is not None
    examples = training_examples(config, stage, corpus, needs_passage=False)
    question_tokenizer = load_encoder_tokenizer(parts.question_encoder)
    tokenizer = load_tokenizer(parts.generator)
    rag = load_rag(parts, model, stage.dropout)
    searched = open_index(index, model.n_docs)
    rag.rag.retriever = LiveRetriever(rag.config, question_tokenizer, tokenizer, searched)
    texts = [example.question for example in examples]
    questions = question_tokens(rag.question_encoder, question_tokenizer, model.max_question_length, texts)
    has_prompt = bool(getattr(rag.question_encoder, "prompt", ""))
    own = tokenized(question_tokenizer, model.max_question_length, texts) if has_prompt else None
    answers = [
        answer_tokens(example.answers if stage.draw_answers else example.answers[:1], tokenizer, model)
        for example in examples
    ]

    freeze(rag, stage.freeze)
    arguments = training_arguments(stage, work, config.seed, len(examples))
    total = arguments.max_steps * examples_a_step(arguments)
    order = draw([example.group for example in examples], total, config.seed, stage.sample)
    rng = random.Random(f"answers {config.seed}")
    items = QuestionItems(questions, answers, order, [rng.randrange(1 << 30) for _ in order], own)
    reader = rag.config.generator
    collate = collate_questions(pad(question_tokenizer), reader.pad_token_id, reader.decoder_start_token_id)
    rag.config.label_smoothing = arguments.label_smoothing_factor
    dev = None
    if sample := dev_examples(config, corpus, needs_passage=False):
        dev_texts = share([example.question for example in sample])
        longest, question_pad = model.max_question_length, pad(question_tokenizer)
        asked = question_tokens(rag.question_encoder, question_tokenizer, longest, dev_texts)
        alone = tokenized(question_tokenizer, longest, dev_texts) if has_prompt else None
        dev = DevSet(sample, lambda: joint_answers(rag, tokenizer, asked, alone, question_pad))
    trained = train_stage(
        rag,
        items,
        collate,
        arguments,
        stage="joint",
        progress=progress,
        settings=stage,
        trainer=MarginalTrainer,
        callbacks=[SaveTokenizer(RagTokenizer(question_tokenizer, tokenizer))],
        dev=dev,
    )
    searched.close()
    if not is_first():
        return
    with replaced(target) as folder:
        save_with_tokenizer(rag.question_encoder, question_tokenizer, folder / "question_encoder")
        save_with_tokenizer(rag.generator, tokenizer, folder / "generator")
        write_stage_report(folder, trained, {})
