"""The marginal likelihood, against the formulas of the paper computed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ragengine_export.tokenization import load_tokenizer
from ragengine_train import TrainResult, read_config
from ragengine_train.checkpoint import Parts, load_rag
from ragengine_train.generator import answer_tokens
from ragengine_train.joint_items import collate_questions
from ragengine_train.joint_objective import marginal_nll
from ragengine_train.live_retriever import LiveRetriever, RagengineIndex
from tests.support import training_world


@pytest.mark.parametrize("kind", ["token", "sequence"])
def test_marginal_nll(world: Path, unbroken: TrainResult, kind: str) -> None:
    """Equal to the paper's p(y|x) from each document's own log-probabilities, and to transformers' loss when
    the model retrieves by itself."""
    model = read_config(
        training_world.write_config(world, kind=kind, output=f"nll-{kind}", joint="max_steps = 1")
    ).model
    run = world / "run"
    parts = Parts(str(run / "encoders/question_encoder"), "", str(run / "generator"))
    rag = load_rag(parts, model).eval()
    tokenizers = load_tokenizer(parts.question_encoder), load_tokenizer(parts.generator)
    index = RagengineIndex(run / "index", model.n_docs)
    retriever = LiveRetriever(rag.config, *tokenizers, index)
    rag.set_retriever(retriever)
    towns, mayors = training_world.names(2, "ton", 1), training_world.names(2, "", 2)
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
