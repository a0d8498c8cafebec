"""Joint fine-tuning: -log p(y | x), marginal over the retrieved documents (paper, section 2.4).

Documents are retrieved with the current question encoder.  It and the generator learn.  The passage encoder
and its index stay as they are, or it learns too and the index follows it.
"""

import contextlib
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import DPRContextEncoder, PreTrainedTokenizerBase, TrainerCallback

from ragengine_export.tokenization import load_tokenizer
from ragengine_train.batching import pad
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
from ragengine_train.data import Example, TrainingPassages, training_examples
from ragengine_train.dev_metrics import dev_examples
from ragengine_train.dev_samples import DevSet
from ragengine_train.example_order import draw
from ragengine_train.folders import link_folder, remove, replaced
from ragengine_train.generator import answer_tokens
from ragengine_train.joint_items import QuestionItems, QuestionTokens, collate_questions, numbered
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


@torch.no_grad()
def joint_answers(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    questions: QuestionTokens,
    question_pad: int,
    passages: PassageVectors | None = None,
) -> list[str]:
    """transformers' answers with the documents that are found now, and with `[model.generation]`."""
    answers: list[str] = []
    config, device = model.generation_config, model.generator.device
    for start in range(0, len(questions.read), _BATCH):
        batch = questions.batch(slice(start, start + _BATCH), question_pad)
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
    networks = _Networks.load(config, parts)
    rag = networks.rag
    retriever = LiveRetriever(
        rag.config, networks.questions, networks.generator, open_index(index, model.n_docs)
    )
    rag.rag.retriever = retriever
    passages = None
    if networks.passages is not None:
        passages = LearningVectors(corpus, rag.rag.ctx_encoder, networks.passages, model.max_passage_length)
        if not stage.uses_passages:
            progress(TrainProgress("joint", f"  {_MARGINAL_ALONE}"))
    arguments = training_arguments(stage, work, config.seed, len(examples))
    rag.config.label_smoothing = arguments.label_smoothing_factor
    frozen = work / CONTEXT_ENCODER
    callbacks: list[TrainerCallback] = [SaveBeside(_saving_beside(config, parts, networks, frozen))]
    with contextlib.ExitStack() as while_training:
        reindexing = None
        if networks.passages is not None:
            reindexing = Reindexing(
                stage.reindex_every,
                stage.reindex_delay,
                work / _INDEXES,
                save=networks.save_passage_encoder,
                encode=lambda source, made: corpus_encoding(source, made, config, corpus, rag.device),
                swap=lambda made: retriever.swap(open_index(made, model.n_docs)),
                progress=progress,
            )
            callbacks.append(while_training.enter_context(reindexing))
        objective = JointObjective(stage, corpus, examples, passages)
        trained = train_stage(
            rag,
            _items(config, networks, examples, arguments.max_steps * examples_a_step(arguments)),
            numbered(networks.collate()),
            arguments,
            stage="joint",
            progress=progress,
            settings=stage,
            trainer=partial(JointTrainer, objective, stage, reindexing),
            callbacks=callbacks,
            dev=_dev_set(config, corpus, networks, passages),
        )
    retriever.index.close()
    if not is_first():
        return
    with replaced(target) as folder:
        networks.save(folder)
        write_stage_report(folder, trained, {})
    remove(work / _INDEXES)
    remove(frozen)  # checkpoints that stay have its files


@dataclass(frozen=True)
class _Networks:
    """The model that the stage trains, and the tokenizers of its parts.

    passages  that of the passage encoder, where that learns; None where it does not
    """

    rag: Any
    questions: PreTrainedTokenizerBase
    generator: PreTrainedTokenizerBase
    passages: PreTrainedTokenizerBase | None

    @classmethod
    def load(cls, config: TrainConfig, parts: Parts) -> "_Networks":
        assert config.joint is not None
        learns = config.joint.train_context_encoder
        return cls(
            load_joint(config, parts),
            load_encoder_tokenizer(parts.question_encoder),
            load_tokenizer(parts.generator),
            load_encoder_tokenizer(parts.context_encoder) if learns else None,
        )

    def tokens(self, longest: int, texts: Sequence[str]) -> QuestionTokens:
        """Questions for the question encoder."""
        return QuestionTokens.of(self.rag.question_encoder, self.questions, longest, texts)

    def collate(self) -> Any:
        """As :func:`collate_questions`."""
        reader = self.rag.config.generator
        return collate_questions(pad(self.questions), reader.pad_token_id, reader.decoder_start_token_id)

    def save_passage_encoder(self, folder: Path) -> None:
        """Write the passage encoder, which learns."""
        assert self.passages is not None
        save_with_tokenizer(self.rag.rag.ctx_encoder, self.passages, folder)

    def save(self, folder: Path) -> None:
        """Write the networks that learn, a folder each."""
        save_with_tokenizer(self.rag.question_encoder, self.questions, folder / "question_encoder")
        save_with_tokenizer(self.rag.generator, self.generator, folder / "generator")
        if self.passages is not None:
            self.save_passage_encoder(folder / CONTEXT_ENCODER)


def _items(
    config: TrainConfig, networks: _Networks, examples: Sequence[Example], total: int
) -> QuestionItems:
    """The ``total`` items of the stage in the order of training, and which answer each trains on."""
    stage, model = config.joint, config.model
    assert stage is not None
    questions = networks.tokens(model.max_question_length, [example.question for example in examples])
    wanted = [example.answers if stage.draw_answers else example.answers[:1] or ("",) for example in examples]
    answers = [answer_tokens(texts, networks.generator, model) for texts in wanted]
    order = draw([example.group for example in examples], total, config.seed, stage.sample)
    rng = random.Random(f"answers {config.seed}")
    return QuestionItems(questions, answers, order, [rng.randrange(1 << 30) for _ in order])


def _dev_set(
    config: TrainConfig, corpus: TrainingPassages, networks: _Networks, passages: PassageVectors | None
) -> DevSet | None:
    """The dev examples and how the model answers them, with the documents that are found then."""
    sample = dev_examples(config, corpus, needs_passage=False)
    if not sample:
        return None
    own = share([example.question for example in sample])
    asked, question_pad = networks.tokens(config.model.max_question_length, own), pad(networks.questions)
    return DevSet(
        sample, lambda: joint_answers(networks.rag, networks.generator, asked, question_pad, passages)
    )


def _saving_beside(
    config: TrainConfig, parts: Parts, networks: _Networks, frozen: Path
) -> Callable[[Path], None]:
    """What writes, into a checkpoint's folder, what it needs beside its weights to be exported.

    A passage encoder that does not learn is written once, into ``frozen``, and linked.
    """
    tokenizers = RagTokenizers.load(parts, config.model)
    rag = networks.rag

    def save(folder: Path) -> None:
        tokenizers.save(rag.question_encoder, folder)
        if networks.passages is not None:
            save_with_tokenizer(rag.rag.ctx_encoder, tokenizers.passages, folder / CONTEXT_ENCODER)
            return
        if not frozen.exists():
            with replaced(frozen) as made:
                encoder = load_encoder(parts.context_encoder, DPRContextEncoder, config.model.pooling)
                save_with_tokenizer(encoder, tokenizers.passages, made)
        link_folder(frozen, folder / CONTEXT_ENCODER)

    return save
