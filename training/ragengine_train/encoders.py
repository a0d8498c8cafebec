"""DPR pre-training of the two encoders (Karpukhin et al. 2020, section 3.2): in-batch and hard negatives."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.profiler import record_function
from torch.utils.data import Dataset
from transformers import DPRContextEncoder, DPRQuestionEncoder

from ragengine.arrays import FloatArray
from ragengine.corpus.passage import Passage
from ragengine.errors import OptionsError
from ragengine_train.batching import Tokens, by_length, encoder_inputs, full_precision, pad, tokenized
from ragengine_train.checkpoint import (
    as_encoder,
    load_encoder,
    load_encoder_tokenizer,
    save_with_tokenizer,
    vector_size,
)
from ragengine_train.config import EncodersConfig, TrainConfig
from ragengine_train.data import Example, TrainingPassages, training_examples
from ragengine_train.example_order import draw
from ragengine_train.folders import replaced
from ragengine_train.hard_negatives import Mining, NegativeTables, one_question_each
from ragengine_train.pooled_encoder import PooledEncoder
from ragengine_train.processes import count, gather_rows, is_first, padded_share, rank, rejoin, share
from ragengine_train.progress import Progress
from ragengine_train.report import write_stage_report
from ragengine_train.trainer import examples_a_step, freeze, train_stage, training_arguments


def dpr_loss(
    questions: torch.Tensor, passages: torch.Tensor, labels: torch.Tensor, copies: torch.Tensor
) -> torch.Tensor:
    """Mean over Q of -log softmax(q·d)[positive] over the P passages of the batch (DPR, equation 2).

    ``questions`` [Q, E], ``passages`` [P, E], ``labels`` int64 [Q] the positives' places, ``copies`` bool
    [Q, P] passages that are right as well and therefore no negatives.  Computed in float32: the scores are
    not normalised, and in bfloat16 40.0 and 40.1 are one number.
    """
    with torch.autocast(questions.device.type, enabled=False):
        scores = full_precision(questions) @ full_precision(passages).T
        return cross_entropy(scores.masked_fill(copies, -torch.inf), labels)


class BiEncoder(torch.nn.Module):
    """The two encoders; without a ``context_encoder`` one network is both."""

    def __init__(self, question_encoder: Any, context_encoder: Any | None) -> None:
        super().__init__()
        self.question_encoder = question_encoder
        if context_encoder is not None:
            self.context_encoder = context_encoder

    @property
    def passages(self) -> Any:
        """The network that encodes passages."""
        return getattr(self, "context_encoder", self.question_encoder)

    def forward(
        self,
        questions: dict[str, torch.Tensor],
        passages: list[dict[str, torch.Tensor]],
        labels: torch.Tensor,
        copies: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """The loss of a batch of :class:`PassageItems`; ``passages`` comes in parts of about one length.

        ``questions`` and each part are what this process encodes of the batch that all of them make.
        """
        with record_function("encode passages"):
            own = [self.passages(**part).pooler_output for part in passages]
        with record_function("encode questions"):
            question_vectors = self.question_encoder(**questions).pooler_output
        counts = _part_counts(copies.shape[1])
        documents = torch.cat([gather_rows(part, rows) for part, rows in zip(own, counts, strict=False)])
        asked = gather_rows(question_vectors, len(labels))
        return {"loss": dpr_loss(asked, documents, labels, copies)}


@torch.inference_mode()
def encode(
    encoder: Any, rows: Tokens, pad_token_id: int, *, bf16: bool = False, batch: int = 128
) -> FloatArray:
    """Vectors of token ids, float32 [N, E], with the encoder as it is now (its mode is kept)."""
    was_training, device = encoder.training, next(encoder.parameters()).device
    encoder.eval()
    vectors = np.zeros((len(rows), vector_size(encoder)), np.float32)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        for chosen in by_length(rows, batch):
            inputs = encoder_inputs([rows[index] for index in chosen], pad_token_id)
            output = encoder(**{name: tensor.to(device) for name, tensor in inputs.items()})
            vectors[chosen] = output.pooler_output.float().cpu().numpy()
    encoder.train(was_training)
    return vectors


def right_passages(corpus: TrainingPassages, examples: Sequence[Example]) -> dict[str, set[int]]:
    """The passages that answer each question, by their originals."""
    right: dict[str, set[int]] = defaultdict(set)
    for example in examples:
        if example.passage is not None:
            rows = (example.passage, *example.others)
            right[example.question].update(corpus.copy_of[row] for row in rows)
    return right


def other_right(right: Sequence[set[int]], originals: Sequence[int], labels: torch.Tensor) -> torch.Tensor:
    """bool [Q, P]: the passages that answer a question as its positive does, without the positive.

    ``right``: the originals that answer each question; ``originals``: of each passage of the batch;
    ``labels`` int64 [Q]: the positives' places.
    """
    copies = torch.tensor([[original in own for original in originals] for own in right])
    return copies.scatter_(1, labels[:, None], False)


@dataclass(frozen=True)
class Item:
    """A positive passage with its hard negatives, and the (question, passage) pairs of their questions."""

    passages: list[int]
    questions: list[tuple[int, int]]


class PassageItems(Dataset[Item]):
    """Positive passages in the order of training, each with some of its questions.

    An item depends on the seed, its number and the negatives that are current at its step, on nothing else.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        config: EncodersConfig,
        tables: NegativeTables,
        *,
        total: int,
        a_step: int,
        seed: int,
    ) -> None:
        self.examples, self.config, self.tables, self.a_step, self.seed = (
            examples,
            config,
            tables,
            a_step,
            seed,
        )
        self.asking: dict[int, list[int]] = defaultdict(list)
        self.given: dict[int, list[int]] = defaultdict(list)
        asking: dict[tuple[int, str], list[int]] = defaultdict(list)  # where groups are drawn, by group, too
        for number, example in enumerate(examples):
            if example.passage is not None:
                self.asking[example.passage].append(number)
                self.given[example.passage] += example.hard_negatives
                asking[example.passage, example.group if config.sample else ""].append(number)
        self.positives = list(self.asking)
        self._groups = [(row, numbers) for (row, _), numbers in asking.items()]
        self.order = draw([group for _, group in asking], total, seed, config.sample)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> Item:
        positive, own = self._groups[self.order[number]]
        rng = random.Random(f"item {self.seed} {number}")
        negatives = self._negatives(positive, number // self.a_step, rng)
        asking = [(positive, own)]
        if self.config.question_negatives:
            asking += [(row, self.asking.get(row, [])) for row in negatives]
        most = self.config.questions_per_passage
        questions = [
            (question, row)
            for row, numbers in asking
            for question in rng.sample(numbers, min(most, len(numbers)))
        ]
        return Item([positive, *negatives], questions)

    def _negatives(self, positive: int, step: int, rng: random.Random) -> list[int]:
        """Mined ones first; where they are too few, those that the questions file names."""
        count = self.config.hard_negatives
        mined = self.tables.at(step).get(positive, [])
        chosen = rng.sample(mined, min(count, len(mined)))
        given = sorted(set(self.given[positive]) - {positive, *chosen})
        return chosen + rng.sample(given, min(count - len(chosen), len(given)))


class BatchMaker:
    """Items to the inputs of :class:`BiEncoder`; a passage that several items bring is encoded once.

    The items are those of all processes.  Each encodes its part of the passages and questions, and labels
    are places among all of them.
    """

    def __init__(
        self,
        corpus: TrainingPassages,
        examples: Sequence[Example],
        questions: Tokens,
        passages: Tokens,
        pads: tuple[int, int],
    ) -> None:
        """``questions`` and ``passages``: token ids by example and by row; ``pads``: their two pad tokens."""
        self.copy_of, self.questions, self.passages, self.pads = corpus.copy_of, questions, passages, pads
        self.examples = examples
        self.right = right_passages(corpus, examples)

    def __call__(self, items: list[Item]) -> dict[str, Any]:
        """Passages in order of length, in two halves: less padding."""
        rows = sorted(
            {row for item in items for row in item.passages}, key=lambda row: (len(self.passages[row]), row)
        )
        place = {row: number for number, row in enumerate(rows)}
        pairs = list(dict.fromkeys(pair for item in items for pair in item.questions))
        middle = _part_counts(len(rows))[0]
        labels = torch.tensor([place[row] for _, row in pairs])
        return {
            "questions": _own_inputs([self.questions[question] for question, _ in pairs], self.pads[0]),
            "passages": [
                _own_inputs([self.passages[row] for row in part], self.pads[1])
                for part in (rows[:middle], rows[middle:])
                if part
            ],
            "labels": labels,
            "copies": other_right(
                [self.right[self.examples[question].question] for question, _ in pairs],
                [self.copy_of[row] for row in rows],
                labels,
            ),
        }


class ProcessBatch:
    """The numbers of a process's items to its part of the batch that the items of all processes make.

    What is trained on is then what one process would train on: an item depends on its number alone.
    """

    def __init__(self, items: PassageItems, make: BatchMaker) -> None:
        self._items, self._make = items, make

    def __call__(self, numbers: list[int]) -> dict[str, Any]:
        """``numbers`` follow each other, and those of the next process follow them."""
        first = numbers[0] - rank() * len(numbers)
        return self._make([self._items[number] for number in range(first, first + count() * len(numbers))])


def _part_counts(passages: int) -> tuple[int, int]:
    """How many of a batch's passages are in its two parts."""
    return (passages + 1) // 2, passages // 2


def _own_inputs(rows: Tokens, pad_token_id: int) -> dict[str, torch.Tensor]:
    """This process's rows of a batch, padded as the whole is."""
    whole = encoder_inputs(rows, pad_token_id)
    own = padded_share(len(rows))
    return {name: tensor[own] for name, tensor in whole.items()}


def train_encoders(
    config: TrainConfig, corpus: TrainingPassages, work: Path, target: Path, progress: Progress
) -> None:
    """DPR pre-training; ``target`` gets ``question_encoder`` and ``context_encoder``."""
    stage, model = config.encoders, config.model
    assert stage is not None
    examples = training_examples(config, stage, corpus, needs_passage=True, needs_answer=False)
    given = any(example.hard_negatives for example in examples)
    if stage.hard_negatives and not stage.refresh_negatives and not given:
        raise OptionsError(
            f"encoders.hard_negatives is {stage.hard_negatives} and there are none: give refresh_negatives, "
            "or hard_negative_ids in the questions."
        )
    question_encoder = load_encoder(model.question_encoder, DPRQuestionEncoder, model.pooling)
    context_encoder = (
        None
        if model.share_encoders
        else load_encoder(str(model.context_encoder), DPRContextEncoder, model.pooling)
    )
    tokenizers = tuple(map(load_encoder_tokenizer, (model.question_encoder, str(model.context_encoder))))
    pads = (pad(tokenizers[0]), pad(tokenizers[1]))
    questions = question_tokens(
        question_encoder, tokenizers[0], model.max_question_length, [example.question for example in examples]
    )
    passages = passage_tokens(
        corpus.passages, context_encoder or question_encoder, tokenizers[1], model.max_passage_length
    )

    encoders = BiEncoder(question_encoder, context_encoder)
    freeze(encoders, stage.freeze)
    tables = NegativeTables(work / "negatives", stage.refresh_negatives)
    arguments = training_arguments(stage, work, config.seed, len({example.passage for example in examples}))
    a_step = examples_a_step(arguments)
    items = PassageItems(
        examples, stage, tables, total=arguments.max_steps * a_step, a_step=a_step, seed=config.seed
    )

    def vectors(encoder: BiEncoder, step: int) -> tuple[FloatArray, FloatArray]:
        chosen = [questions[index] for index in one_question_each(items.asking, step, config.seed)]
        asked = encode(encoder.question_encoder, share(chosen), pads[0], bf16=arguments.bf16)
        return (
            encode(encoder.passages, share(passages[: corpus.indexed]), pads[1], bf16=arguments.bf16),
            np.stack(rejoin(list(asked))),
        )

    collate = BatchMaker(corpus, examples, questions, passages, pads)
    right = [
        set[int]().union(*(collate.right[examples[number].question] for number in items.asking[row]))
        for row in items.positives
    ]
    mining = Mining(tables, vectors, items.positives, corpus.copy_of, right, stage.hard_negatives, progress)
    trained = train_stage(
        encoders,
        range(len(items)),
        ProcessBatch(items, collate),
        arguments,
        stage="encoders",
        progress=progress,
        settings=stage,
        callbacks=[mining],
    )
    if not is_first():
        return
    context_encoder = context_encoder or as_encoder(question_encoder, DPRContextEncoder)
    with replaced(target) as folder:
        save_with_tokenizer(question_encoder, tokenizers[0], folder / "question_encoder")
        save_with_tokenizer(context_encoder, tokenizers[1], folder / "context_encoder")
        write_stage_report(folder, trained, {})


def question_tokens(encoder: Any, tokenizer: Any, longest: int, questions: Sequence[str]) -> Tokens:
    """Questions as an encoder reads them: after its prompt, where it has one."""
    prompt = encoder.prompt if isinstance(encoder, PooledEncoder) else ""
    return tokenized(tokenizer, longest, [prompt + question for question in questions])


def passage_tokens(passages: Sequence[Passage], encoder: Any, tokenizer: Any, longest: int) -> Tokens:
    """``[CLS] title [SEP] text [SEP]`` of every passage, or one text as sentence-transformers reads it."""
    titles, texts = zip(*((passage.title, passage.text) for passage in passages), strict=True)
    if not isinstance(encoder, PooledEncoder) or encoder.passages == "pair":
        return tokenized(tokenizer, longest, titles, texts)
    joined = [f"{title} {text}" if title else text for title, text in zip(titles, texts, strict=True)]
    return tokenized(tokenizer, longest, [encoder.prompt + text for text in joined])
