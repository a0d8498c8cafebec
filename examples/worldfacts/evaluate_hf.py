"""Measure a checkpoint with transformers alone: `python evaluate_hf.py --data data --checkpoint checkpoint`.

Three figures, all on questions about passages that no training question asks about:

* exact match of the generator given the right passage (a sample of all test questions, beams of 4);
* recall@5 of the retrieval over the shipped passages: of the right passage, and of any with the answer;
* exact match end to end, `RagRetriever` + `RagTokenForGeneration.generate`, on the shipped questions.

The weights are read as the checkpoint stores them (float16) and computed with in float32.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import faiss
import numpy as np
import torch
from datasets import Dataset
from transformers import DPRContextEncoder, RagRetriever, RagTokenForGeneration, RagTokenizer
from transformers.models.rag.retrieval_rag import CustomHFIndex

from common import (
    N_DOCS,
    NUM_BEAMS,
    Passages,
    Question,
    exact_match,
    normalise,
    read_passages,
    read_questions,
    write_json,
)
from train_encoder import by_type, encode_all, recall, tokenise_passages, tokenise_questions
from train_generator import Examples, measure

SAMPLE_SEED = 5


def answer_recall(
    questions: list[Question], asked: np.ndarray, vectors: np.ndarray, passages: Passages, depth: int = N_DOCS
) -> list[bool]:
    """DPR's recall: whether any of the first `depth` passages contains an answer as whole words."""
    texts = [f" {normalise(text)} " for text in passages.texts]
    hits = []
    for question, vector in zip(questions, asked, strict=True):
        scores = vectors @ vector
        top = np.argpartition(-scores, depth)[:depth]
        answers = [f" {normalise(answer)} " for answer in question.answers]
        hits.append(any(answer in texts[row] for row in top for answer in answers))
    return hits


def build_retriever(
    model: RagTokenForGeneration, tokenizer: RagTokenizer, passages: Passages, vectors: np.ndarray
) -> RagRetriever:
    """HF's own retriever over an exact inner-product index."""
    columns = {"title": passages.titles, "text": passages.texts, "embeddings": list(vectors)}
    dataset = Dataset.from_dict(columns)
    dataset.add_faiss_index("embeddings", metric_type=faiss.METRIC_INNER_PRODUCT)
    index = CustomHFIndex(model.config.retrieval_vector_size, dataset)
    return RagRetriever(model.config, tokenizer.question_encoder, tokenizer.generator, index=index)


@torch.inference_mode()
def answer_end_to_end(
    model: RagTokenForGeneration, tokenizer: RagTokenizer, questions: list[Question]
) -> list[str]:
    """Retrieve and generate with transformers' defaults (padding to `max_combined_length`)."""
    predictions: list[str] = []
    for start in range(0, len(questions), 20):
        chosen = [q.question for q in questions[start : start + 20]]
        inputs = tokenizer(chosen, return_tensors="pt", padding=True, truncation=True)
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            num_beams=NUM_BEAMS,
            n_docs=N_DOCS,
        )
        predictions += tokenizer.batch_decode(output, skip_special_tokens=True)
    return predictions


def check_prompts(
    retriever: RagRetriever, examples: Examples, passages: Passages, questions: list[Question]
) -> None:
    """The inputs of the training are those of `RagRetriever.postprocess_docs`, token for token."""
    tokenizer = retriever.question_encoder_tokenizer
    rows = [passages.row[q.passage_id] for q in questions]
    docs = [{"title": [passages.titles[row]], "text": [passages.texts[row]]} for row in rows]
    texts = tokenizer.batch_decode(
        tokenizer([q.question for q in questions])["input_ids"], skip_special_tokens=True
    )
    ids, mask = retriever.postprocess_docs(docs, texts, None, 1)
    for padded, keep, ours in zip(ids, mask, examples.inputs, strict=True):
        assert [i for i, kept in zip(padded, keep, strict=True) if kept] == ours


def evaluate(data: Path, checkpoint: Path, sample: int) -> dict[str, Any]:
    """All figures; see the module."""
    model = RagTokenForGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = RagTokenizer.from_pretrained(checkpoint)
    context_encoder = DPRContextEncoder.from_pretrained(
        checkpoint / "context_encoder", dtype=torch.float32
    ).eval()
    corpus, shipped = read_passages(data / "passages.tsv"), read_passages(data / "shipped_passages.tsv")
    questions, test = read_questions(data / "questions.jsonl"), read_questions(data / "test.jsonl")
    trained = {q.passage_id for q in read_questions(data / "train.jsonl")}
    assert not trained & {q.passage_id for q in [*questions, *test]}, (
        "a test question asks about a training passage"
    )
    figures: dict[str, Any] = {}

    started = time.perf_counter()
    vectors = encode_all(context_encoder, tokenise_passages(tokenizer.question_encoder, shipped))
    figures["seconds_to_encode_shipped"] = round(time.perf_counter() - started, 1)
    about_shipped = [q for q in test if q.passage_id in shipped.row]
    for name, rows in (("shipped_questions", questions), ("test_questions_about_shipped", about_shipped)):
        asked = encode_all(model.question_encoder, tokenise_questions(tokenizer.question_encoder, rows))
        gold = [shipped.row[q.passage_id] for q in rows]
        figures[f"recall@5_{name}"] = {
            "n": len(rows),
            "right_passage": by_type(rows, recall(asked, vectors, gold)),
            "right_passage_first": by_type(rows, recall(asked, vectors, gold, depth=1))["all"],
            "any_with_answer": by_type(rows, answer_recall(rows, asked, vectors, shipped))["all"],
        }
        click.echo(f"recall@5, {name}: {figures[f'recall@5_{name}']}")

    model.set_retriever(build_retriever(model, tokenizer, shipped, vectors))
    started = time.perf_counter()
    predictions = answer_end_to_end(model, tokenizer, questions)
    seconds = time.perf_counter() - started
    hits = [exact_match(text, q.answers) for text, q in zip(predictions, questions, strict=True)]
    wrong: dict[str, list[str]] = defaultdict(list)
    for q, text, hit in zip(questions, predictions, hits, strict=True):
        if not hit:
            wrong[q.type].append(f"{q.question} | {q.answers[0]} |{text}")
    figures["end_to_end_shipped_questions"] = {
        "n": len(questions),
        "n_docs": N_DOCS,
        "num_beams": NUM_BEAMS,
        "exact_match": by_type(questions, hits),
        "seconds_a_question": round(seconds / len(questions), 3),
    }
    click.echo(f"end to end: {figures['end_to_end_shipped_questions']}")
    for name, lines in sorted(wrong.items()):
        click.echo(f"  wrong, {name}: {lines[:3]}")

    chosen = random.Random(SAMPLE_SEED).sample(test, min(sample, len(test)))
    examples = Examples(corpus, chosen, tokenizer.question_encoder, tokenizer.generator)
    check_prompts(model.retriever, examples, corpus, chosen)
    for name, rows in (("test_sample", chosen), ("shipped_questions", questions)):
        given = Examples(corpus, rows, tokenizer.question_encoder, tokenizer.generator)
        matches = measure(model.generator, tokenizer.generator, given, rows, NUM_BEAMS)
        figures[f"given_right_passage_{name}"] = {
            "n": len(rows),
            "num_beams": NUM_BEAMS,
            "exact_match": matches,
        }
        click.echo(f"given the right passage, {name}: {figures[f'given_right_passage_{name}']}")
    return figures


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--checkpoint", type=click.Path(path_type=Path), default=Path("checkpoint"), show_default=True)
@click.option("--sample", default=1_500, show_default=True, help="Test questions for the generator alone.")
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(data: Path, checkpoint: Path, sample: int, threads: int, output: Path | None) -> None:
    """Measure the checkpoint."""
    torch.set_num_threads(threads)
    figures = evaluate(data, checkpoint, sample)
    if output:
        write_json(output, figures)


if __name__ == "__main__":
    main()
