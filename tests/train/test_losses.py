"""The two objectives, against what the papers' formulas give by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration
from transformers.models.bart.modeling_bart import shift_tokens_right

from ragengine_train import read_config
from ragengine_train.checkpoint import Parts, load_rag, load_tokenizer
from ragengine_train.config import GeneratorConfig
from ragengine_train.encoders import dpr_loss
from ragengine_train.generator import PromptItems, WarmUpTrainer, answer_tokens, collate_prompts
from ragengine_train.joint import collate_questions, marginal_nll
from ragengine_train.live_retriever import LiveRetriever, RagengineIndex
from ragengine_train.trainer import train_stage, training_arguments
from tests.train import toy


def test_dpr_loss_by_hand() -> None:
    """DPR, equation 2; the third passage is a copy of the first question's positive."""
    questions, passages = (
        torch.tensor([[1.0, 0.0], [0.0, 2.0]]),
        torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0]]),
    )
    labels, copies = torch.tensor([0, 1]), torch.tensor([[False, False, True], [False, False, False]])
    first = -math.log(math.exp(1) / (math.exp(1) + math.exp(0)))
    second = -math.log(math.exp(2) / (math.exp(0) + math.exp(2) + math.exp(0)))
    assert dpr_loss(questions, passages, labels, copies).item() == pytest.approx((first + second) / 2)


def test_dpr_loss_is_float32_under_autocast() -> None:
    questions, passages = torch.tensor([[40.0, 0.03]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    labels, copies = torch.tensor([0]), torch.zeros(1, 2, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = dpr_loss(questions, passages, labels, copies)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(0.03)), rel=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_accumulated_batches_are_one(tmp_path: Path, smoothing: float) -> None:
    """Four batches of two and one of eight are the same step, also where answers differ in length."""
    rng = np.random.default_rng(0)
    answers = [[*rng.integers(3, 20, length).tolist(), 2] for length in (1, 2, 2, 9, 3, 1, 12, 5)]
    prompts = [rng.integers(3, 20, 6).tolist() for _ in answers]
    weights = []
    for size, batches in ((8, 1), (2, 4)):
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": batches}
        settings |= {
            "max_steps": 2,
            "learning_rate": 1e-2,
            "label_smoothing_factor": smoothing,
            "optim": "sgd",
        }
        stage = GeneratorConfig(arguments=settings)
        torch.manual_seed(0)
        sizes = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 20}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "dropout": 0.0}
        model = BartForConditionalGeneration(BartConfig(**sizes, **heads, encoder_layers=1, decoder_layers=1))
        items = PromptItems(prompts, answers, [*range(8), *range(8)])
        arguments = training_arguments(stage, tmp_path / f"{size}", 0, 8)
        train_stage(model, items, collate_prompts(1, 2), arguments, trainer=WarmUpTrainer)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
        if not smoothing and size == 8:
            batch = collate_prompts(1, 2)([items[number] for number in range(8)])
            made = batch.pop("decoder_input_ids")
            torch.testing.assert_close(made, shift_tokens_right(batch["labels"], 1, 2))
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["token", "sequence"])
def test_marginal_nll(world: Path, unbroken: dict[str, Any], kind: str) -> None:
    """Equal to the paper's p(y|x) from each document's own log-probabilities, and to transformers' loss when
    the model retrieves by itself."""
    model = read_config(toy.write_config(world, kind=kind, output=f"nll-{kind}", joint="max_steps = 1")).model
    run = world / "run"
    parts = Parts(str(run / "encoders/question_encoder"), "", str(run / "generator"))
    rag = load_rag(parts, model).eval()
    tokenizers = load_tokenizer(parts.question_encoder), load_tokenizer(parts.generator)
    index = RagengineIndex(run / "index", model.n_docs)
    retriever = LiveRetriever(rag.config, *tokenizers, index)
    rag.set_retriever(retriever)
    towns, mayors = toy.names(2, "ton", 1), toy.names(2, "", 2)
    questions = tokenizers[0]([f"Who is the mayor of {town}?" for town in towns])["input_ids"]
    answers = answer_tokens([mayors[0], "x"], tokenizers[1], model)
    inputs = collate_questions(0, 1, 2)(list(zip(questions, answers, strict=True)))
    with torch.no_grad():
        nll = marginal_nll(rag, **inputs)
        whole = rag(**inputs, reduce_loss=False, use_cache=False).loss
        vectors = rag.question_encoder(inputs["input_ids"], attention_mask=inputs["attention_mask"])[0]
        found = retriever(inputs["input_ids"], vectors.numpy(), return_tensors="pt")
        expected = [by_hand(rag.generator, found, vectors, answers[q], q, kind) for q in range(2)]
    index.close()
    assert nll.tolist() == pytest.approx(expected, rel=1e-4)
    assert nll.tolist() == pytest.approx(whole.tolist(), rel=1e-5)


def by_hand(bart: Any, found: Any, vectors: torch.Tensor, answer: Sequence[int], q: int, kind: str) -> float:
    """-log p(y|x) of one question in float64."""
    embeds = found["retrieved_doc_embeds"].float()
    prior = (embeds[q] @ vectors[q]).double().log_softmax(0).numpy()
    d = len(prior)
    rows = slice(q * d, (q + 1) * d)
    logits = bart(
        input_ids=found["context_input_ids"][rows],
        attention_mask=found["context_attention_mask"][rows],
        decoder_input_ids=torch.tensor([[2, *answer[:-1]]] * d),
    ).logits
    log_probs = logits.double().log_softmax(-1).numpy()
    tokens = np.array([log_probs[:, t, token] for t, token in enumerate(answer)])  # [T, D]
    if kind == "token":
        return -float(np.logaddexp.reduce(prior + tokens, axis=1).sum())
    return -float(np.logaddexp.reduce(prior + tokens.sum(axis=0)))
