"""Losses and gradients of the joint stage, against transformers and against the formulas by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DPRContextEncoder

from ragengine_export.tokenization import load_tokenizer
from ragengine_train import TrainConfig, TrainResult, read_config
from ragengine_train.batching import encoder_inputs
from ragengine_train.checkpoint import Parts, load_encoder
from ragengine_train.config import JointConfig
from ragengine_train.corpus_encoding import corpus_encoding
from ragengine_train.data import Example, TrainingPassages, read_examples
from ragengine_train.generator import answer_tokens
from ragengine_train.joint import load_joint
from ragengine_train.joint_items import collate_questions
from ragengine_train.joint_objective import JointObjective, retrieved
from ragengine_train.live_retriever import LiveRetriever, RagengineIndex
from ragengine_train.passage_vectors import LearningVectors
from tests.support import training_world


@dataclass
class Stage:
    """The networks of the joint stage over the toy world, the passages, and a batch of four questions."""

    config: TrainConfig
    corpus: TrainingPassages
    examples: list[Example]
    rag: Any
    tokenizer: Any
    batch: dict[str, torch.Tensor]

    @property
    def joint(self) -> JointConfig:
        assert self.config.joint is not None
        return self.config.joint

    @property
    def passages(self) -> LearningVectors:
        return LearningVectors(self.corpus, self.rag.rag.ctx_encoder, self.tokenizer, 32)

    def objective(self, learning: bool = True) -> JointObjective:
        return JointObjective(self.joint, self.corpus, self.examples, self.passages if learning else None)

    def gradients(self) -> dict[str, torch.Tensor]:
        """Those since they were set to zero, by parameter."""
        return {
            name: parameter.grad.clone()
            for name, parameter in self.rag.named_parameters()
            if parameter.grad is not None
        }


@contextmanager
def stage(world: Path, output: str, body: str, kind: str = "token") -> Iterator[Stage]:
    """The stage after the first stages of `world/run`, with the settings ``body``."""
    config = read_config(training_world.write_config(world, kind=kind, output=output, joint=body))
    run = world / "run"
    parts = Parts(
        str(run / "encoders/question_encoder"),
        str(run / "encoders/context_encoder"),
        str(run / "generator"),
    )
    rag = load_joint(config, parts).eval()
    tokenizers = load_tokenizer(parts.question_encoder), load_tokenizer(parts.generator)
    corpus = TrainingPassages.read(config.data.passages)
    examples = read_examples([world / "data/train.jsonl"], corpus)[3:7]
    rag.rag.retriever = LiveRetriever(rag.config, *tokenizers, RagengineIndex(run / "index", 5))
    questions = tokenizers[0]([one.question for one in examples])["input_ids"]
    answers = answer_tokens([one.answers[0] for one in examples], tokenizers[1], config.model)
    batch = collate_questions(0, 1, 2)(list(zip(questions, answers, strict=True)))
    passage_tokenizer = load_tokenizer(parts.context_encoder)
    try:
        yield Stage(config, corpus, examples, rag, passage_tokenizer, batch)
    finally:
        rag.rag.retriever.index.close()


@pytest.fixture
def learning(world: Path, unbroken: TrainResult) -> Iterator[Stage]:
    """A stage whose passage encoder learns."""
    with stage(world, "learning", "max_steps = 1\ntrain_context_encoder = true\n") as made:
        yield made


@pytest.mark.parametrize("kind", ["token", "sequence"])
def test_loss_and_gradients_are_those_of_transformers(world: Path, unbroken: TrainResult, kind: str) -> None:
    """``RagModel.forward`` with ``set_context_encoder_for_training`` encodes each found passage again."""
    with stage(world, f"theirs-{kind}", "max_steps = 1\ntrain_context_encoder = true\n", kind) as made:
        rag = made.rag
        ours = made.objective()(rag, made.batch, 0.0, range(4)).total
        ours.backward()
        expected = made.gradients()
        rag.zero_grad()
        rag.rag.retriever.set_ctx_encoder_tokenizer(made.tokenizer)
        rag.set_context_encoder_for_training(rag.rag.ctx_encoder)
        theirs = rag(**made.batch, reduce_loss=False, use_cache=False).loss.mean()
        theirs.backward()
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
        found = made.gradients()
        assert found.keys() == expected.keys()
        largest = max(float(gradient.abs().max()) for gradient in found.values())
        for name, gradient in found.items():
            torch.testing.assert_close(expected[name], gradient, atol=1e-5 * largest, rtol=1e-3)
        reached = [name for name in found if "ctx_encoder" in name and found[name].abs().max() > 0]
        assert len(reached) > 20, "the gradient was to reach the passage encoder"


@pytest.mark.parametrize("kind", ["token", "sequence"])
def test_gradients_are_finite_differences(world: Path, unbroken: TrainResult, kind: str) -> None:
    """Both parts of the loss along random directions of each network, in float64."""
    body = "max_steps = 1\ntrain_context_encoder = true\ndpr_weight = 0.5\n"
    with stage(world, f"differences-{kind}", body, kind) as made:
        made.rag.double()
        objective = made.objective()

        def loss(made: Stage = made, objective: JointObjective = objective) -> torch.Tensor:
            return objective(made.rag, made.batch, 0.5, range(4)).total

        loss().backward()
        gradients = made.gradients()
        torch.manual_seed(0)
        for network in ("question_encoder", "ctx_encoder", "generator"):
            parameters = {
                name: parameter
                for name, parameter in made.rag.named_parameters()
                if f".{network}." in name and name in gradients
            }
            directions = {name: torch.randn_like(parameter) for name, parameter in parameters.items()}
            step = 1e-6
            values = []
            with torch.no_grad():
                for side in (1, -2):
                    for name, parameter in parameters.items():
                        parameter += side * step * directions[name]
                    values.append(float(loss()))
                for name, parameter in parameters.items():
                    parameter += step * directions[name]
            expected = sum(float((gradients[name] * directions[name]).sum()) for name in parameters)
            assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=1e-5), network
            assert abs(expected) > 1e-3


def test_dpr_loss_by_hand(world: Path, unbroken: TrainResult) -> None:
    """-log softmax over all passages that are found or gold, without other right ones, in float64; a question
    without a gold passage has no part in it."""
    body = "max_steps = 1\ntrain_context_encoder = true\ndpr_weight = 0.5\n"
    with stage(world, "dpr", body) as made:
        made.examples[1] = Example(**{**vars(made.examples[1]), "passage": None})
        found = retrieved(made.rag, made.batch["input_ids"], made.batch["attention_mask"])
        other = int(found.documents[2][0])  # a passage that is found is declared right as well
        made.examples[2] = Example(**{**vars(made.examples[2]), "others": (other,)})
        loss = made.objective()(made.rag, made.batch, 0.5, range(4))
        gold = [made.examples[number].passage for number in (0, 2, 3)]
        rows = sorted({*found.documents.ravel().tolist(), *[row for row in gold if row is not None]})
        tokens = made.tokenizer(
            [made.corpus.passages[row].title for row in rows],
            [made.corpus.passages[row].text for row in rows],
        )["input_ids"]
        with torch.no_grad():
            vectors = made.rag.rag.ctx_encoder(**encoder_inputs(tokens, 0)).pooler_output.double()
            asked = made.rag.question_encoder(made.batch["input_ids"], made.batch["attention_mask"])[0]
        scores = (asked.double() @ vectors.T).numpy()
        terms = []
        for number, row in zip((0, 2, 3), gold, strict=True):
            left = [place for place, one in enumerate(rows) if one == row or number != 2 or one != other]
            terms.append(np.logaddexp.reduce(scores[number, left]) - scores[number, rows.index(row)])
        assert loss.dpr is not None
        assert loss.marginal is not None
        assert loss.dpr.item() == pytest.approx(np.mean(terms), rel=1e-4)
        assert loss.total.item() == pytest.approx(loss.marginal.item() + 0.5 * loss.dpr.item(), rel=1e-6)


def test_dpr_loss_over_stored_vectors(world: Path, unbroken: TrainResult) -> None:
    """The question encoder alone learns from it; the generator is not run with ``retrieval_only``."""
    with stage(world, "alone", "max_steps = 1\nretrieval_only = true\n") as made:
        before = made.objective(learning=False)(made.rag, made.batch, 0.0, range(4))
        before.total.backward()
        assert before.marginal is None
        assert {name.split(".")[1] for name in made.gradients()} == {"question_encoder"}
        length = torch.stack([gradient.norm() for gradient in made.gradients().values()]).norm()
        with torch.no_grad():
            for parameter in made.rag.question_encoder.parameters():
                if parameter.grad is not None:
                    parameter -= 0.01 / length * parameter.grad
        assert made.objective(learning=False)(made.rag, made.batch, 0.0, range(4)).total < before.total
        made.examples[:] = [Example(**{**vars(one), "passage": None}) for one in made.examples]
        none = made.objective(learning=False)(made.rag, made.batch, 0.0, range(4))
        none.total.backward()
        assert none.total.item() == 0


def test_training_and_search_agree_after_a_swap(learning: Stage, tmp_path: Path) -> None:
    """p(z | x) and the documents, for an encoder that has learned since the index was made."""
    rag, objective = learning.rag, learning.objective()
    optimizer = torch.optim.Adam(rag.rag.ctx_encoder.parameters(), 3e-3)
    for _ in range(4):
        optimizer.zero_grad()
        objective(rag, learning.batch, 0.0, range(4)).total.backward()
        optimizer.step()
    asked = {name: learning.batch[name] for name in ("input_ids", "attention_mask")}

    def priors() -> tuple[torch.Tensor, torch.Tensor, np.ndarray[Any, Any]]:
        with torch.no_grad():
            searched = retrieved(rag, **asked)
            learned = retrieved(rag, **asked, passages=learning.passages)
        return searched.scores().softmax(1), learned.scores().softmax(1), searched.documents

    searched, learned, _ = priors()
    assert (searched - learned).abs().max() > 0.02, "the old index does not know what was learned"
    folder = tmp_path / "context_encoder"
    rag.rag.ctx_encoder.save_pretrained(folder)
    learning.tokenizer.save_pretrained(folder)
    index = tmp_path / "index"
    corpus_encoding(folder, index, learning.config, learning.corpus, rag.device)(lambda: None)
    rag.rag.retriever.swap(RagengineIndex(index, 5))
    searched, learned, documents = priors()
    torch.testing.assert_close(searched, learned, atol=2e-3, rtol=0)
    with torch.no_grad():
        whole = rag.question_encoder(**asked)[0] @ learning.passages(range(learning.corpus.indexed)).T
    np.testing.assert_array_equal(documents, whole.topk(5).indices.numpy())


def test_learning_vectors(learning: Stage) -> None:
    """In the order of the rows, whatever their lengths are, and those of the encoder called alone."""
    learning.corpus.add("A long one", "word " * 25, None)
    rows = [learning.corpus.indexed, 7, 3, *range(40)]
    found = learning.passages(rows)
    for place in (0, 1, 2, 42):
        passage = learning.corpus.passages[rows[place]]
        inputs = learning.tokenizer(
            passage.title, passage.text, truncation=True, max_length=32, return_tensors="pt"
        )
        alone = learning.rag.rag.ctx_encoder(inputs["input_ids"], inputs["attention_mask"]).pooler_output[0]
        torch.testing.assert_close(found[place], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("end", "expected"), [(None, [0.8, 0.8, 0.8]), (0.2, [0.8, 0.5, 0.2]), (0.0, [0.8, 0.4, 0.0])]
)
def test_weight_of_dpr(end: float | None, expected: list[float]) -> None:
    stage = JointConfig(dpr_weight=0.8, dpr_weight_end=end)
    assert [stage.weight_of_dpr(step, 11) for step in (0, 5, 10)] == pytest.approx(expected)
    assert stage.weight_of_dpr(0, 1) == 0.8


def test_context_encoder_is_loaded_as_one(learning: Stage, world: Path) -> None:
    encoder = load_encoder(str(world / "run/encoders/context_encoder"), DPRContextEncoder)
    assert type(learning.rag.rag.ctx_encoder) is type(encoder) is DPRContextEncoder
