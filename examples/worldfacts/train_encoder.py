"""Train the question and passage encoder (one network): `python train_encoder.py --data data --work work`.

DPR's loss: each question against all passages of its batch, dot product, not normalised, so that the
softmax over scores is p(z|x). A passage is encoded once and asked about by several questions. A batch is made
of clusters of passages that are easily confused: alphabetical neighbours and places of one country first,
then, after half of the steps, the passages that the encoder itself confuses.
"""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import DPRQuestionEncoder, DPRQuestionEncoderTokenizerFast

from common import (
    Passages,
    Question,
    TrainingLog,
    read_passages,
    read_questions,
    seed_everything,
    write_json,
)

HYPERPARAMETERS: dict[str, Any] = {
    "steps": 420,
    "clusters": 40,
    "cluster_size": 4,
    "questions_a_passage": 3,
    "country_share": 0.12,
    "airport_share": 0.33,
    "rate": 3e-4,
    "warmup": 40,
    "weight_decay": 0.01,
    "clip": 1.0,
    "mine_at": 0.5,
    "seed": 11,
}
MAX_LENGTH = 256

Vectors = np.ndarray


def to_batch(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-pad with [PAD] (0); ids and mask."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return ids, ids.ne(0).long()


def encode(encoder: DPRQuestionEncoder, rows: list[list[int]]) -> torch.Tensor:
    """Vectors [N, E] of token id lists; token types are all 0, as in HF's RAG examples."""
    ids, mask = to_batch(rows)
    return encoder(input_ids=ids, attention_mask=mask).pooler_output.float()


@torch.inference_mode()
def encode_all(
    encoder: DPRQuestionEncoder, rows: list[list[int]], bf16: bool = False, batch: int = 256
) -> Vectors:
    """Vectors of many rows in their order, computed in order of length."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    result = np.zeros((len(rows), encoder.config.projection_dim), dtype=np.float32)
    encoder.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            result[chosen] = encode(encoder, [rows[i] for i in chosen]).numpy()
    return result


def tokenise_passages(tokenizer: DPRQuestionEncoderTokenizerFast, passages: Passages) -> list[list[int]]:
    """[CLS] title [SEP] text [SEP]"""
    return tokenizer(passages.titles, passages.texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]


def tokenise_questions(
    tokenizer: DPRQuestionEncoderTokenizerFast, questions: list[Question]
) -> list[list[int]]:
    """[CLS] question [SEP]"""
    return tokenizer([q.question for q in questions], truncation=True, max_length=MAX_LENGTH)["input_ids"]


class Clusters:
    """Samples batches of passages that are easily confused."""

    def __init__(self, passages: Passages, questions: list[Question], rng: random.Random) -> None:
        self.rng = rng
        self.passages = passages
        self.questions_of: dict[int, list[int]] = defaultdict(list)
        for index, question in enumerate(questions):
            self.questions_of[passages.row[question.passage_id]].append(index)
        self.kind = [passage_id.split("-")[0] for passage_id in passages.ids]
        self.seeds: dict[str, list[int]] = defaultdict(list)
        for row in sorted(self.questions_of):
            self.seeds[self.kind[row]].append(row)
        self.by_name: dict[str, list[int]] = defaultdict(list)
        self.place: dict[int, int] = {}
        self.all_of: dict[str, list[int]] = defaultdict(list)
        for row in sorted(range(len(passages)), key=lambda r: (passages.titles[r].lower(), r)):
            self.place[row] = len(self.by_name[self.kind[row]])
            self.by_name[self.kind[row]].append(row)
        for row, kind in enumerate(self.kind):
            self.all_of[kind].append(row)
        self.confused: dict[int, list[int]] = {}

    def cluster(self, seed: int, size: int) -> list[int]:
        """The seed and `size` - 1 passages easily taken for it."""
        rng, kind = self.rng, self.kind[seed]
        found = rng.sample(self.confused.get(seed, []), min(size - 2, len(self.confused.get(seed, []))))
        draw = rng.random()
        if kind == "country":
            ordered = self.by_name[kind]
            at = self.place[seed]
            candidates = ordered[max(0, at - 1) : at + 2] + rng.sample(ordered, 2)
        elif draw < 0.5:  # neighbours in the alphabet
            ordered = self.by_name[kind]
            at = self.place[seed]
            candidates = ordered[max(0, at - 3) : at + 4]
        elif kind == "airport":  # neighbours by code: the file is in that order
            candidates = [
                row for row in range(seed - 3, seed + 4) if row < len(self.kind) and self.kind[row] == kind
            ]
        else:
            candidates = rng.sample(self.all_of[kind], size)
        rng.shuffle(candidates)
        return list(dict.fromkeys([seed, *found, *candidates]))[:size]

    def batch(self) -> tuple[list[int], list[int], list[int]]:
        """Passage rows [P], question indices [Q] and for each question the place of its passage."""
        h, rng = HYPERPARAMETERS, self.rng
        weights = [h["country_share"], 1 - h["country_share"] - h["airport_share"], h["airport_share"]]
        rows: dict[int, None] = {}
        for kind in rng.choices(("country", "city", "airport"), weights, k=h["clusters"]):
            rows |= dict.fromkeys(self.cluster(rng.choice(self.seeds[kind]), h["cluster_size"]))
        questions, labels = [], []
        for label, row in enumerate(rows):
            own = self.questions_of.get(row, [])
            chosen = rng.sample(own, min(h["questions_a_passage"], len(own)))
            questions += chosen
            labels += [label] * len(chosen)
        return list(rows), questions, labels


def mine(
    encoder: DPRQuestionEncoder,
    clusters: Clusters,
    passage_ids: list[list[int]],
    question_ids: list[list[int]],
) -> None:
    """Note for each passage the others that rank high for one of its questions."""
    vectors = encode_all(encoder, passage_ids, bf16=True)
    rows = sorted(clusters.questions_of)
    picked = [clusters.rng.choice(clusters.questions_of[row]) for row in rows]
    asked = encode_all(encoder, [question_ids[i] for i in picked], bf16=True, batch=512)
    for start in range(0, len(rows), 2000):
        scores = asked[start : start + 2000] @ vectors.T
        top = np.argpartition(-scores, 8, axis=1)[:, :8]
        for row, near in zip(rows[start : start + 2000], top.tolist(), strict=True):
            clusters.confused[row] = [other for other in near if other != row]
    encoder.train()


def train(
    encoder: DPRQuestionEncoder,
    clusters: Clusters,
    passage_ids: list[list[int]],
    question_ids: list[list[int]],
    snapshots: Path,
) -> TrainingLog:
    """Contrastive training with bf16 autocast."""
    h = HYPERPARAMETERS
    steps, warmup = h["steps"], h["warmup"]
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=h["rate"], weight_decay=h["weight_decay"])
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, max(0.02, (steps - step) / (steps - warmup)))
    )
    log = TrainingLog("encoder", every=20)
    encoder.train()
    for step in range(1, steps + 1):
        if step == int(steps * h["mine_at"]):
            mine(encoder, clusters, passage_ids, question_ids)
            print(f"mined confusable passages at {log.seconds} s", flush=True)
            encoder.save_pretrained(snapshots)
        rows, asked, labels = clusters.batch()
        rows_order = sorted(range(len(rows)), key=lambda i: len(passage_ids[rows[i]]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            halves = [rows_order[: len(rows) // 2], rows_order[len(rows) // 2 :]]  # less padding
            parts = [encode(encoder, [passage_ids[rows[i]] for i in half]) for half in halves]
            questions = encode(encoder, [question_ids[i] for i in asked])
        documents = torch.cat(parts)
        place = torch.empty(len(rows), dtype=torch.long)
        place[torch.tensor(halves[0] + halves[1])] = torch.arange(len(rows))
        loss = cross_entropy(questions @ documents.T, place[torch.tensor(labels)])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), h["clip"])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        log.step(step, steps, loss.item(), schedule.get_last_lr()[0])
    encoder.eval()
    return log


def recall(questions: Vectors, passages: Vectors, gold: list[int], depth: int = 5) -> list[bool]:
    """For each question whether its passage is among the first `depth` by dot product."""
    hits: list[bool] = []
    for start in range(0, len(questions), 1000):
        scores = questions[start : start + 1000] @ passages.T
        right = scores[np.arange(len(scores)), gold[start : start + 1000]]
        hits += ((scores > right[:, None]).sum(axis=1) < depth).tolist()
    return hits


def by_type(questions: list[Question], hits: list[bool]) -> dict[str, float]:
    """Mean of the hits over all questions and by type."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for question, hit in zip(questions, hits, strict=True):
        groups["all"].append(hit)
        groups[question.type].append(hit)
    return {name: round(sum(values) / len(values), 4) for name, values in sorted(groups.items())}


def run(data: Path, work: Path) -> None:
    """Train the encoder; needs `prepare.py`'s output in `work`."""
    seed = HYPERPARAMETERS["seed"]
    seed_everything(seed)
    tokenizer = DPRQuestionEncoderTokenizerFast.from_pretrained(work / "question_tokenizer")
    encoder = DPRQuestionEncoder.from_pretrained(work / "encoder_start")
    passages, questions = read_passages(data / "passages.tsv"), read_questions(data / "train.jsonl")
    passage_ids, question_ids = (
        tokenise_passages(tokenizer, passages),
        tokenise_questions(tokenizer, questions),
    )
    clusters = Clusters(passages, questions, random.Random(seed))
    log = train(encoder, clusters, passage_ids, question_ids, work / "encoder_snapshot")
    encoder.save_pretrained(work / "encoder")
    development = read_questions(data / "dev.jsonl")
    vectors = encode_all(encoder, passage_ids, bf16=True)
    asked = encode_all(encoder, tokenise_questions(tokenizer, development))
    dev = by_type(development, recall(asked, vectors, [passages.row[q.passage_id] for q in development]))
    click.echo(f"recall@5 over all {len(passages):,} passages, {len(development)} dev questions: {dev}")
    report = {"hyperparameters": HYPERPARAMETERS, "seconds": log.seconds, "loss": log.samples, "dev": dev}
    write_json(work / "encoder" / "report.json", report)


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path("work"), show_default=True)
@click.option("--threads", type=int, default=2, show_default=True)
def main(data: Path, work: Path, threads: int) -> None:
    """Train the encoder; needs `prepare.py`'s output in `work`."""
    torch.set_num_threads(threads)
    run(data, work)


if __name__ == "__main__":
    main()
