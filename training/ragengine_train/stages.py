"""The three trainings: from texts to a folder with weights, tokenizers and a report."""

import dataclasses
import random
from pathlib import Path
from typing import Any, TypeAlias

from transformers import DPRContextEncoder, DPRQuestionEncoder

from ragengine.errors import OptionsError, PassagesError
from ragengine_train.batches import Tokens, tokenized
from ragengine_train.checkpoint import (
    Parts,
    as_encoder,
    load_encoder,
    load_generator,
    load_rag,
    load_tokenizer,
    save_with_tokenizer,
)
from ragengine_train.config import StageConfig, TrainConfig, listed
from ragengine_train.data import Corpus, Line, read_lines
from ragengine_train.encoders import BatchMaker, BiEncoder, FloatArray, PassageItems, encode
from ragengine_train.folders import replaced
from ragengine_train.generator import (
    PromptItems,
    WarmUpTrainer,
    answer_tokens,
    collate_prompts,
    gold_exact_match,
    gold_prompts,
)
from ragengine_train.joint import MarginalTrainer, QuestionItems, collate_questions
from ragengine_train.measure import sampled
from ragengine_train.negatives import Mining, NegativeTables, one_question_each
from ragengine_train.report import REPORT, write_json
from ragengine_train.retriever import LiveRetriever, RagengineIndex
from ragengine_train.schedule import check_groups, draw, group_by_length
from ragengine_train.stage import Trained, examples_a_step, freeze, train_stage, training_arguments

Report: TypeAlias = dict[str, Any]


def train_encoders(config: TrainConfig, corpus: Corpus, work: Path, target: Path) -> Report:
    """DPR pre-training; ``target`` gets ``question_encoder`` and ``context_encoder``."""
    stage, model = config.encoders, config.model
    assert stage is not None
    lines = training_lines(config, stage, corpus, needs_passage=True)
    given = any(line.hard_negatives for line in lines)
    if stage.hard_negatives and not stage.refresh_negatives and not given:
        raise OptionsError(
            f"encoders.hard_negatives is {stage.hard_negatives} and there are none: give refresh_negatives, "
            "or hard_negative_ids in the questions."
        )
    question_encoder = load_encoder(model.question_encoder, DPRQuestionEncoder)
    context_encoder = (
        None if model.share_encoders else load_encoder(str(model.context_encoder), DPRContextEncoder)
    )
    tokenizers = load_tokenizer(model.question_encoder), load_tokenizer(str(model.context_encoder))
    pads = (_pad(tokenizers[0]), _pad(tokenizers[1]))
    questions = tokenized(tokenizers[0], model.max_question_length, [line.question for line in lines])
    passages = _passage_tokens(corpus, tokenizers[1], model.max_passage_length)

    encoders = BiEncoder(question_encoder, context_encoder)
    freeze(encoders, stage.freeze)
    tables = NegativeTables(work / "negatives", stage.refresh_negatives)
    arguments = training_arguments(stage, work, config.seed, len({line.passage for line in lines}))
    a_step = examples_a_step(arguments)
    items = PassageItems(
        lines, stage, tables, total=arguments.max_steps * a_step, a_step=a_step, seed=config.seed
    )

    def vectors(encoder: BiEncoder, step: int) -> tuple[FloatArray, FloatArray]:
        asked = [questions[index] for index in one_question_each(items.asking, step, config.seed)]
        return (
            encode(encoder.passages, passages[: corpus.indexed], pads[1], bf16=arguments.bf16),
            encode(encoder.question_encoder, asked, pads[0], bf16=arguments.bf16),
        )

    collate = BatchMaker(corpus, lines, questions, passages, pads)
    right = [
        set[int]().union(*(collate.right[lines[number].question] for number in items.asking[row]))
        for row in items.positives
    ]
    mining = Mining(tables, vectors, items.positives, corpus.copy_of, right, stage.hard_negatives)
    trained = train_stage(encoders, items, collate, arguments, callbacks=[mining])
    context_encoder = context_encoder or as_encoder(question_encoder, DPRContextEncoder)
    with replaced(target) as folder:
        save_with_tokenizer(question_encoder, tokenizers[0], folder / "question_encoder")
        save_with_tokenizer(context_encoder, tokenizers[1], folder / "context_encoder")
        return _reported(folder, trained, {})


def train_generator(config: TrainConfig, corpus: Corpus, parts: Parts, work: Path, target: Path) -> Report:
    """Warm-up on gold passages; ``target`` gets the generator."""
    stage, model = config.generator, config.model
    assert stage is not None
    lines = training_lines(config, stage, corpus, needs_passage=True)
    question_tokenizer, tokenizer = load_tokenizer(parts.question_encoder), load_tokenizer(parts.generator)
    generator = load_generator(parts.generator, model)
    prefix = getattr(generator.config, "prefix", None)  # what RagRetriever puts before a prompt
    prompts = gold_prompts(lines, corpus, question_tokenizer, tokenizer, model, prefix)
    answers = answer_tokens([line.answers[0] for line in lines], tokenizer, model)

    freeze(generator, stage.freeze)
    arguments = training_arguments(stage, work, config.seed, len(lines))
    a_step = examples_a_step(arguments)
    order = draw([line.group for line in lines], arguments.max_steps * a_step, config.seed, stage.sample)
    order = group_by_length(
        order, list(map(len, prompts)), arguments.per_device_train_batch_size, config.seed
    )
    reader = generator.config
    collate = collate_prompts(reader.pad_token_id, reader.decoder_start_token_id)
    items = PromptItems(prompts, answers, order)
    trained = train_stage(generator, items, collate, arguments, trainer=WarmUpTrainer)

    dev = {}
    if config.data.dev is not None:
        asked = [
            line
            for line in read_lines([config.data.dev], corpus)
            if line.passage is not None and line.answers
        ]
        if asked := sampled(asked, config):
            prompts = gold_prompts(asked, corpus, question_tokenizer, tokenizer, model, prefix)
            exact = gold_exact_match(generator, tokenizer, prompts, asked, model.max_answer_length)
            dev = {"n": len(asked), "exact_match_gold_passage": exact}
    with replaced(target) as folder:
        save_with_tokenizer(generator, tokenizer, folder)
        return _reported(folder, trained, dev)


def train_joint(
    config: TrainConfig, corpus: Corpus, parts: Parts, index: Path, work: Path, target: Path
) -> Report:
    """Joint tuning over ``index``; ``target`` gets ``question_encoder`` and ``generator``."""
    stage, model = config.joint, config.model
    assert stage is not None
    lines = training_lines(config, stage, corpus, needs_passage=False)
    question_tokenizer, tokenizer = load_tokenizer(parts.question_encoder), load_tokenizer(parts.generator)
    rag = load_rag(parts, model)
    searched = RagengineIndex(index, model.n_docs)
    rag.rag.retriever = LiveRetriever(rag.config, question_tokenizer, tokenizer, searched)
    questions = tokenized(question_tokenizer, model.max_question_length, [line.question for line in lines])
    answers = [
        answer_tokens(line.answers if stage.draw_answers else line.answers[:1], tokenizer, model)
        for line in lines
    ]

    freeze(rag, stage.freeze)
    arguments = training_arguments(stage, work, config.seed, len(lines))
    total = arguments.max_steps * examples_a_step(arguments)
    order = draw([line.group for line in lines], total, config.seed, stage.sample)
    rng = random.Random(f"answers {config.seed}")
    items = QuestionItems(questions, answers, order, [rng.randrange(1 << 30) for _ in order])
    reader = rag.config.generator
    collate = collate_questions(_pad(question_tokenizer), reader.pad_token_id, reader.decoder_start_token_id)
    trained = train_stage(rag, items, collate, arguments, trainer=MarginalTrainer)
    searched.close()
    with replaced(target) as folder:
        save_with_tokenizer(rag.question_encoder, question_tokenizer, folder / "question_encoder")
        save_with_tokenizer(rag.generator, tokenizer, folder / "generator")
        return _reported(folder, trained, {})


def training_lines(
    config: TrainConfig, stage: StageConfig, corpus: Corpus, *, needs_passage: bool
) -> list[Line]:
    """The training questions a stage can use: of its groups, with an answer, with a passage if needed.

    Answers without a character are left out.  Raises :class:`PassagesError` where there are no lines.
    """
    files = listed(config.data.train if stage.train is None else stage.train)
    lines = [
        dataclasses.replace(line, answers=tuple(filter(None, line.answers)))
        for line in read_lines(files, corpus)
    ]
    usable = [line for line in lines if line.answers and (line.passage is not None or not needs_passage)]
    if usable and stage.sample:
        check_groups([line.group for line in usable], stage.sample)
        usable = [line for line in usable if line.group in stage.sample]
    if not usable:
        raise PassagesError(
            f"{', '.join(files)}: no line has an answer" + (" and a passage_id." if needs_passage else ".")
        )
    return usable


def _passage_tokens(corpus: Corpus, tokenizer: Any, longest: int) -> Tokens:
    """``[CLS] title [SEP] text [SEP]`` of every passage."""
    titles, texts = zip(*((passage.title, passage.text) for passage in corpus.passages), strict=True)
    return tokenized(tokenizer, longest, titles, texts)


def _pad(tokenizer: Any) -> int:
    return int(tokenizer.pad_token_id or 0)


def _reported(folder: Path, trained: Trained, dev: dict[str, float]) -> Report:
    report: Report = {"seconds": trained.seconds, "log_history": trained.log_history, "dev": dev}
    write_json(folder / REPORT, report)
    return report
