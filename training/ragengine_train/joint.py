"""Joint fine-tuning: -log p(y | x), marginal over the retrieved documents (paper, section 2.4).

Documents are retrieved with the current question encoder.  It and the generator learn.  The passage encoder
and its index stay as they are, or it learns too and the index follows it.
"""

import contextlib
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import DPRContextEncoder, PreTrainedTokenizerBase, TrainerCallback

from ragengine_export.tokenization import load_tokenizer
from ragengine_train.batching import Tokens, encoder_inputs, pad, padded, tokenized
from ragengine_train.checkpoint import (
    CONTEXT_ENCODER,
    Parts,
    RagTokenizers,
    load_encoder,
    load_encoder_tokenizer,
    load_rag,
    save_with_tokenizer,
)
from ragengine_train.config import JointConfig, TrainConfig
from ragengine_train.corpus_encoding import corpus_encoding
from ragengine_train.data import TrainingPassages, training_examples
from ragengine_train.dev_metrics import dev_examples
from ragengine_train.dev_samples import DevSet
from ragengine_train.encoders import question_tokens
from ragengine_train.example_order import draw
from ragengine_train.folders import link_folder, remove, replaced
from ragengine_train.generator import answer_tokens
from ragengine_train.joint_objective import JointObjective, retrieved
from ragengine_train.live_retriever import LiveRetriever, OpenIndex, RagengineIndex
from ragengine_train.passage_vectors import LearningVectors, PassageVectors
from ragengine_train.processes import is_first, share, stack
from ragengine_train.progress import Progress, TrainProgress
from ragengine_train.reindexing import Reindexing
from ragengine_train.report import write_stage_report
from ragengine_train.trainer import (
    SaveBeside,
    StageTrainer,
    examples_a_step,
    freeze,
    through,
    train_stage,
    training_arguments,
)

_BATCH = 16
_MARGINAL_ALONE = (
    "warning: the passage encoder learns from the marginal likelihood alone, which an old index misleads; "
    "set dpr_weight where questions have gold passages, else watch index_agreement in the log, and lower "
    "learning_rate or reindex_every, or raise n_docs, where it falls"
)
_INDEXES = "indexes"  # in the stage's work folder: a folder for each index that it makes


class QuestionItems(Dataset[tuple[int, tuple[Sequence[int], ...]]]):
    """Numbers of examples, their questions and answers, token ids, in the order of training."""

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

    def __getitem__(self, number: int) -> tuple[int, tuple[Sequence[int], ...]]:
        index = self.order[number]
        answers = self.answers[index]
        item = self.questions[index], answers[self.choices[number] % len(answers)]
        return index, item if self.own is None else (*item, self.own[index])


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


@torch.no_grad()
def joint_answers(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    questions: Tokens,
    own: Tokens | None,
    question_pad: int,
    passages: PassageVectors | None = None,
) -> list[str]:
    """transformers' answers with the documents that are found now, and with `[model.generation]`."""
    answers: list[str] = []
    config, device = model.generation_config, model.generator.device
    for start in range(0, len(questions), _BATCH):
        part = slice(start, start + _BATCH)
        batch = encoder_inputs(questions[part], question_pad)
        if own is not None:
            batch["own_ids"] = padded(own[part], question_pad)
        inputs: dict[str, Any] = {name: value.to(device) for name, value in batch.items()}
        found = retrieved(model, **inputs, passages=passages)
        output = model.generate(
            **found.prompts,
            doc_scores=found.scores(),
            n_docs=model.config.n_docs,
            num_beams=config.num_beams or 1,  # RAG-Sequence does not read the config
            max_length=config.max_length,
        )
        answers += tokenizer.batch_decode(output, skip_special_tokens=True)
    return answers


class JointTrainer(StageTrainer):
    """The Trainer on a :class:`JointObjective`; where DPR's loss is part of it, both parts are logged.

    Where the passage encoder learns, ``index_age`` is logged, the steps since the index was encoded, and
    ``index_agreement``, how often the best document of the index is the best by the encoder as it is now.
    """

    def __init__(
        self,
        objective: JointObjective,
        stage: JointConfig,
        reindexing: Reindexing | None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._objective, self._settings, self._reindexing = objective, stage, reindexing
        self._parts: dict[str, list[float]] = defaultdict(list)

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """The batch's loss."""
        batch = dict(inputs)
        examples = batch.pop("examples").tolist()
        weight = self._settings.weight_of_dpr(self.state.global_step, self.state.max_steps)
        objective = partial(self._objective, batch=batch, weight=weight, examples=examples)
        loss = through(model, self.accelerator.unwrap_model(model), objective)
        if loss.dpr is not None and loss.marginal is not None:
            self._parts["marginal_loss"].append(float(loss.marginal.detach()))
            self._parts["dpr_loss"].append(float(loss.dpr.detach()))
            self._parts["dpr_weight"].append(weight)
        if loss.index_agreement is not None:
            self._parts["index_agreement"].append(loss.index_agreement)
        return loss.total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of the parts since the entry before, and the age of the index."""
        if "loss" in logs:
            parts = stack({name: sum(values) / len(values) for name, values in self._parts.items()})
            logs |= {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}
            self._parts.clear()
            if self._reindexing is not None:
                logs["index_age"] = self.state.global_step - self._reindexing.step
        super().log(logs, start_time)


def load_joint(config: TrainConfig, parts: Parts) -> Any:
    """The RAG model that the stage trains, with what its settings freeze.

    A passage encoder that learns is the model's ``ctx_encoder``, as in transformers.
    """
    stage = config.joint
    assert stage is not None
    rag = load_rag(parts, config.model, stage.dropout)
    if stage.train_context_encoder:
        rag.rag.ctx_encoder = load_encoder(parts.context_encoder, DPRContextEncoder, config.model.pooling)
    freeze(rag, [*stage.freeze, *(["generator.*"] if stage.retrieval_only else [])])
    return rag


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
    """Joint tuning over ``index``; ``target`` gets the networks that learn, a folder each."""
    stage, model = config.joint, config.model
    assert stage is not None
    examples = training_examples(
        config, stage, corpus, needs_passage=stage.needs_passage, needs_answer=stage.needs_answer
    )
    question_tokenizer = load_encoder_tokenizer(parts.question_encoder)
    tokenizer = load_tokenizer(parts.generator)
    rag = load_joint(config, parts)
    searched = open_index(index, model.n_docs)
    retriever = LiveRetriever(rag.config, question_tokenizer, tokenizer, searched)
    rag.rag.retriever = retriever
    passages = None
    if stage.train_context_encoder:
        passage_tokenizer = load_encoder_tokenizer(parts.context_encoder)
        passages = LearningVectors(corpus, rag.rag.ctx_encoder, passage_tokenizer, model.max_passage_length)
    texts = [example.question for example in examples]
    questions = question_tokens(rag.question_encoder, question_tokenizer, model.max_question_length, texts)
    has_prompt = bool(getattr(rag.question_encoder, "prompt", ""))
    own = tokenized(question_tokenizer, model.max_question_length, texts) if has_prompt else None
    answers = [
        answer_tokens(
            example.answers if stage.draw_answers else example.answers[:1] or ("",), tokenizer, model
        )
        for example in examples
    ]

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
        dev = DevSet(sample, lambda: joint_answers(rag, tokenizer, asked, alone, question_pad, passages))
    if stage.train_context_encoder and not stage.uses_passages:
        progress(TrainProgress("joint", f"  {_MARGINAL_ALONE}"))
    reindexing = None
    frozen = work / CONTEXT_ENCODER
    tokenizers = RagTokenizers.load(parts, model)

    def save_beside(folder: Path) -> None:
        tokenizers.save(rag.question_encoder, folder)
        if stage.train_context_encoder:
            save_with_tokenizer(rag.rag.ctx_encoder, tokenizers.passages, folder / CONTEXT_ENCODER)
            return
        if not frozen.exists():
            with replaced(frozen) as made:
                encoder = load_encoder(parts.context_encoder, DPRContextEncoder, model.pooling)
                save_with_tokenizer(encoder, tokenizers.passages, made)
        link_folder(frozen, folder / CONTEXT_ENCODER)

    callbacks: list[TrainerCallback] = [SaveBeside(save_beside)]
    with contextlib.ExitStack() as stack:
        if stage.train_context_encoder:

            def save(folder: Path) -> None:
                save_with_tokenizer(rag.rag.ctx_encoder, passage_tokenizer, folder)

            reindexing = Reindexing(
                stage.reindex_every,
                stage.reindex_delay,
                work / _INDEXES,
                save=save,
                encode=lambda source, made: corpus_encoding(source, made, config, corpus, rag.device),
                swap=lambda made: retriever.swap(open_index(made, model.n_docs)),
                progress=progress,
            )
            callbacks.append(stack.enter_context(reindexing))
        trained = train_stage(
            rag,
            items,
            numbered(collate),
            arguments,
            stage="joint",
            progress=progress,
            settings=stage,
            trainer=partial(
                JointTrainer, JointObjective(stage, corpus, examples, passages), stage, reindexing
            ),
            callbacks=callbacks,
            dev=dev,
        )
    retriever.index.close()
    if not is_first():
        return
    with replaced(target) as folder:
        save_with_tokenizer(rag.question_encoder, question_tokenizer, folder / "question_encoder")
        save_with_tokenizer(rag.generator, tokenizer, folder / "generator")
        if stage.train_context_encoder:
            save_with_tokenizer(rag.rag.ctx_encoder, passage_tokenizer, folder / "context_encoder")
        write_stage_report(folder, trained, {})
    remove(work / _INDEXES)
    remove(frozen)  # checkpoints that stay have its files
