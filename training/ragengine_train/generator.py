"""Warm-up: the generator learns to answer from the gold passage, before it reads retrieved ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import GenerationConfig, PreTrainedTokenizerBase

from ragengine.bundle.manifest import RagSpec
from ragengine.evaluation import exact_match
from ragengine.pipeline.prompts import format_prompt
from ragengine_export.tokenization import load_tokenizer
from ragengine_train.batching import Tokens, by_length, padded, tokenized
from ragengine_train.checkpoint import (
    Parts,
    load_encoder_tokenizer,
    load_generator,
    save_with_tokenizer,
)
from ragengine_train.config import ModelConfig, TrainConfig
from ragengine_train.data import Example, TrainingPassages, training_examples
from ragengine_train.dev_metrics import dev_examples
from ragengine_train.dev_samples import DevSet
from ragengine_train.example_order import draw, group_by_length
from ragengine_train.folders import replaced
from ragengine_train.processes import is_first, share
from ragengine_train.progress import Progress
from ragengine_train.report import write_stage_report
from ragengine_train.trainer import (
    SaveBeside,
    StageTrainer,
    examples_a_batch,
    examples_a_step,
    freeze,
    train_stage,
    training_arguments,
)

IGNORED = -100
_BATCH = 32


class PromptItems(Dataset[tuple[Sequence[int], Sequence[int]]]):
    """Prompts and answers, token ids, in the order of training."""

    def __init__(self, prompts: Tokens, answers: Tokens, order: Sequence[int]) -> None:
        self.prompts, self.answers, self.order = prompts, answers, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> tuple[Sequence[int], Sequence[int]]:
        index = self.order[number]
        return self.prompts[index], self.answers[index]


def collate_prompts(pad_token_id: int, decoder_start: int) -> Any:
    """A function from items to a generator's inputs: ids, mask [Q, S], the decoder's ids, labels [Q, T].

    Labels are padded with -100.  The decoder's ids are those that BART and T5 make of labels; the Trainer
    takes these out before the model sees them.
    """

    def collate(items: list[tuple[Sequence[int], Sequence[int]]]) -> dict[str, torch.Tensor]:
        prompts, answers = zip(*items, strict=True)
        return {
            "input_ids": padded(prompts, pad_token_id),
            "attention_mask": padded([[1] * len(prompt) for prompt in prompts], 0),
            "decoder_input_ids": padded([[decoder_start, *one] for one in answers], pad_token_id)[:, :-1],
            "labels": padded(answers, IGNORED),
        }

    return collate


class WarmUpTrainer(StageTrainer):
    """The Trainer on -log p(y | x, z), the mean over all tokens of a step's answers.

    A step may accumulate several batches; the generator's own loss is the mean of one batch.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, compute_loss_func=self._token_nll, **kwargs)

    def _token_nll(
        self, output: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int
    ) -> torch.Tensor:
        nll = cross_entropy(
            output.logits.flatten(0, 1),
            labels.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.args.label_smoothing_factor,
        )
        return nll / num_items_in_batch


def rag_spec(model: ModelConfig, prefix: str | None) -> RagSpec:
    """The settings of `[model]` as the runtime has them, with the ``prefix`` of the generator's config."""
    return RagSpec(
        architecture="RagTokenForGeneration" if model.type == "token" else "RagSequenceForGeneration",
        title_sep=model.title_sep,
        doc_sep=model.doc_sep,
        prefix=prefix or "",
        n_docs=model.n_docs,
        max_combined_length=model.max_combined_length,
        do_deduplication=True,
        exclude_bos_score=False,
    )


def gold_prompts(
    examples: Sequence[Example],
    corpus: TrainingPassages,
    question_tokenizer: PreTrainedTokenizerBase,
    tokenizer: PreTrainedTokenizerBase,
    model: ModelConfig,
    prefix: str | None,
) -> Tokens:
    """The generator's prompt of each example, which must have a passage.

    The question is decoded from the question encoder's token ids, as ``RagRetriever`` decodes it.
    """
    ids = tokenized(question_tokenizer, model.max_question_length, [example.question for example in examples])
    questions = [question_tokenizer.decode(list(one), skip_special_tokens=True) for one in ids]
    spec, texts = rag_spec(model, prefix), []
    for example, question in zip(examples, questions, strict=True):
        passage = corpus.passages[example.passage or 0]
        texts.append(format_prompt(spec, passage.title, passage.text, question))
    return tokenized(tokenizer, model.max_combined_length, texts)


def answer_tokens(answers: Sequence[str], tokenizer: PreTrainedTokenizerBase, model: ModelConfig) -> Tokens:
    """``answer </s>``, and before it ``<s>`` with ``answer_bos``; the decoder's start token is not there."""
    prefixed = [model.answer_prefix + answer for answer in answers]
    ids = tokenized(tokenizer, model.max_answer_length, prefixed)
    bos = tokenizer.bos_token_id
    return ids if model.answer_bos else [one[1:] if one[0] == bos else one for one in ids]


@torch.no_grad()
def gold_answers(
    generator: Any, tokenizer: PreTrainedTokenizerBase, prompts: Tokens, longest: int
) -> list[str]:
    """The greedy answers to prompts with the gold passage."""
    generator.eval()
    pad, answers = generator.config.pad_token_id, [""] * len(prompts)
    special = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
    # Not the generator's own, which may force tokens or forbid repetitions, as facebook/bart-large's does.
    greedy = GenerationConfig(
        **{name: getattr(generator.config, name) for name in special}, max_length=longest
    )
    # `generate` fills what a config leaves open from the model's own.
    own, generator.generation_config = generator.generation_config, greedy
    for chosen in by_length(prompts, _BATCH):
        rows = [prompts[index] for index in chosen]
        output = generator.generate(
            input_ids=padded(rows, pad).to(generator.device),
            attention_mask=padded([[1] * len(row) for row in rows], 0).to(generator.device),
        )
        for index, text in zip(chosen, tokenizer.batch_decode(output, skip_special_tokens=True), strict=True):
            answers[index] = text
    generator.generation_config = own
    return answers


def train_generator(
    config: TrainConfig, corpus: TrainingPassages, parts: Parts, work: Path, target: Path, progress: Progress
) -> None:
    """Warm-up on gold passages; ``target`` gets the generator."""
    stage, model = config.generator, config.model
    assert stage is not None
    examples = training_examples(config, stage, corpus, needs_passage=True)
    question_tokenizer = load_encoder_tokenizer(parts.question_encoder)
    tokenizer = load_tokenizer(parts.generator)
    generator = load_generator(parts.generator, model, stage.dropout)
    prefix = getattr(generator.config, "prefix", None)  # what RagRetriever puts before a prompt
    prompts = gold_prompts(examples, corpus, question_tokenizer, tokenizer, model, prefix)
    answers = answer_tokens([example.answers[0] for example in examples], tokenizer, model)

    freeze(generator, stage.freeze)
    arguments = training_arguments(stage, work, config.seed, len(examples))
    a_step = examples_a_step(arguments)
    order = draw(
        [example.group for example in examples], arguments.max_steps * a_step, config.seed, stage.sample
    )
    order = group_by_length(order, list(map(len, prompts)), examples_a_batch(arguments), config.seed)
    reader = generator.config
    collate = collate_prompts(reader.pad_token_id, reader.decoder_start_token_id)
    items = PromptItems(prompts, answers, order)
    dev = None
    if sample := dev_examples(config, corpus, needs_passage=True):
        dev_prompts = gold_prompts(sample, corpus, question_tokenizer, tokenizer, model, prefix)
        own = share(dev_prompts)
        dev = DevSet(sample, lambda: gold_answers(generator, tokenizer, own, model.max_answer_length))
    trained = train_stage(
        generator,
        items,
        collate,
        arguments,
        stage="generator",
        progress=progress,
        settings=stage,
        trainer=WarmUpTrainer,
        callbacks=[SaveBeside(tokenizer.save_pretrained)],
        dev=dev,
    )

    measured = {}
    if dev is not None:
        answers_now = zip(dev.answer(), dev.examples, strict=True)
        right = [exact_match(text, example.answers) for text, example in answers_now]
        measured = {"n": len(right), "exact_match_gold_passage": sum(right) / len(right)}
    if not is_first():
        return
    with replaced(target) as folder:
        save_with_tokenizer(generator, tokenizer, folder)
        write_stage_report(folder, trained, measured)
