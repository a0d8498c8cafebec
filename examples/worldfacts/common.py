"""What the training scripts share: reading the corpus, prompts, exact match, seeds and logs."""

from __future__ import annotations

import json
import random
import re
import string
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

TITLE_SEP = " / "
DOC_SEP = " // "
MAX_COMBINED_LENGTH = 300
N_DOCS = 5
NUM_BEAMS = 4
MAX_ANSWER_LENGTH = 32


@dataclass(frozen=True)
class Passages:
    """The corpus in file order, with the row of each id."""

    ids: list[str]
    texts: list[str]
    titles: list[str]
    row: dict[str, int]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Question:
    """One line of a questions file."""

    question: str
    answers: list[str]
    type: str
    passage_id: str


@dataclass
class TrainingLog:
    """Prints progress and keeps a sample of it for train.json."""

    name: str
    every: int = 50
    started: float = field(default_factory=time.perf_counter)
    samples: list[dict[str, float]] = field(default_factory=list)
    _losses: list[float] = field(default_factory=list)

    def step(self, step: int, total: int, loss: float, rate: float) -> None:
        """Note one step; every `every` steps print the mean loss since the last line."""
        self._losses.append(loss)
        if step % self.every == 0 or step == total:
            mean, seconds = sum(self._losses) / len(self._losses), time.perf_counter() - self.started
            self._losses.clear()
            self.samples.append({"step": step, "loss": round(mean, 4), "seconds": round(seconds, 1)})
            print(f"{self.name} {step}/{total} loss {mean:.4f} rate {rate:.2e} {seconds:.0f} s", flush=True)

    @property
    def seconds(self) -> float:
        """Wall-clock time since the log was opened."""
        return round(time.perf_counter() - self.started, 1)


def read_passages(path: Path) -> Passages:
    """Read `id<TAB>text<TAB>title` with its header."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "id\ttext\ttitle", path
    ids, texts, titles = (
        list(column) for column in zip(*(line.split("\t") for line in lines[1:]), strict=True)
    )
    return Passages(ids, texts, titles, {passage_id: row for row, passage_id in enumerate(ids)})


def read_questions(path: Path) -> list[Question]:
    """Read a questions file."""
    return [Question(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def decoded_questions(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], max_length: int = 128
) -> list[str]:
    """The questions as the generator sees them: decoded from the question encoder's token ids."""
    ids = tokenizer(list(questions), truncation=True, max_length=max_length)["input_ids"]
    return tokenizer.batch_decode(ids, skip_special_tokens=True)


def prompt(title: str, text: str, question: str) -> str:
    """The generator's input, exactly as `RagRetriever.postprocess_docs` writes it (with no prefix)."""
    title = title.removeprefix('"').removesuffix('"')
    return (title + TITLE_SEP + text + DOC_SEP + question).replace("  ", " ")


def normalise(answer: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles, single spaces."""
    answer = "".join(c for c in answer.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", answer).split())


def exact_match(prediction: str, answers: Sequence[str]) -> bool:
    """Whether the prediction is one of the answers after normalisation."""
    return normalise(prediction) in {normalise(answer) for answer in answers}


def seed_everything(seed: int) -> None:
    """Seed Python and torch."""
    random.seed(seed)
    torch.manual_seed(seed)


def write_json(path: Path, value: object) -> None:
    """Write indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
