"""In int8 and int4 an answer is the same in a batch as alone, bit for bit (docs/concepts/batches.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ragengine import GenerationOptions, Generator, Retriever
from ragengine.generation.search import rag_sequence
from ragengine.generation.search.prefix_trie import output_log_probs
from ragengine_bench.checkpoints.rag_checkpoint import random_spec
from ragengine_bench.parity.pairs import Pair, build_pair
from ragengine_export import export_checkpoint
from ragengine_export.choices import Precision
from tests.support.models import transformers_5

Q, D, S = 5, 3, 40
CASES = [
    pytest.param((precision, name, seed), id=f"{precision}-{name}-{seed}", marks=marks)
    for precision in ("int8", "int4")
    for name, seed, marks in [
        ("bart", 5001, []),
        ("t5", 5002, [transformers_5]),
        *((name, seed, [transformers_5, pytest.mark.slow]) for name in ("bart", "t5", "mbart", "marian")
          for seed in range(5003, 5009)),
    ]
]  # fmt: skip
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1, "max_length": 24, "min_length": 8},
    "beams": {"num_beams": 4, "max_length": 40, "min_length": 4, "num_return_sequences": 4},
    "many-beams": {"num_beams": 9, "max_length": 22, "length_penalty": -0.5, "no_repeat_ngram_size": 2},
    "sample": {"do_sample": True, "seed": 3, "num_beams": 1, "num_return_sequences": 3, "max_length": 22},
    "fast": {"marginalize": "sequence", "search": "fast", "num_beams": 3, "max_length": 20},
    "joint": {"marginalize": "sequence", "search": "joint", "num_beams": 3, "max_length": 20},
}
ROUNDING = 1e-4  # of float32's log-probabilities, up to some 1e-5 where they are tens of nats
SUMMED = 1e-5  # and of their sum
FLIPPED = 0.02  # of a case's numbers, at most
THOROUGH = {"marginalize": "sequence", "num_beams": 3, "max_length": 20, "num_return_sequences": 3}


class Questions:
    """Questions with documents of very different lengths, for one generator."""

    def __init__(self, pair: Pair, generator: Generator, precision: Precision) -> None:
        spec = generator.bundle.manifest.generator
        rng = np.random.default_rng(pair.spec.seed)
        self.pair, self.generator, self.precision = pair, generator, precision
        lengths = rng.integers(1, S + 1, (Q, D, 1))
        lengths[0], lengths[1] = S, 7  # a neighbour with long documents, and a question with short ones
        self.mask = (np.arange(S) < lengths).astype(np.int64)
        ids = rng.integers(4, spec.vocab_size, (Q, D, S))
        self.ids = np.where(self.mask, ids, spec.pad_token_id)
        self.scores = rng.normal(size=(Q, D)).astype(np.float32)

    def answers(self, options: GenerationOptions) -> tuple[list[Any], list[Any]]:
        """All in one batch; and each alone, padded to its own longest document."""
        together = self.generator.generate(self.ids, self.mask, self.scores, options)
        alone = []
        for question in range(Q):
            own = slice(question, question + 1)
            length = int(self.mask[question].sum(axis=1).max())
            ids, mask = self.ids[own, :, :length], self.mask[own, :, :length]
            alone += self.generator.generate(ids, mask, self.scores[own], options)
        return together, alone

    def float_log_probs(self, question: int, outputs: list[tuple[int, ...]]) -> list[Any]:
        """log p(y_t | x, z, y_<t) of outputs in fp32, [T, D] each."""
        start = self.generator.default_options.decoder_start_token_id
        longest, pad = max(map(len, outputs)), self.generator.bundle.manifest.generator.pad_token_id
        labels = np.array([[start, *tokens, *[pad] * (longest - len(tokens))] for tokens in outputs])
        own = slice(question, question + 1)
        found = self.pair.engine.generator.forward(self.ids[own], self.mask[own], self.scores[own], labels)
        rows = zip(found.document_log_probs, outputs, strict=True)
        return [row[:, : len(tokens)].T for row, tokens in rows]


@pytest.fixture(scope="module", params=CASES)
def questions(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Questions]:
    precision, name, seed = request.param
    folder = tmp_path_factory.mktemp("neighbours")
    spec = random_spec(seed, model_type=name, forced_bos=False, forced_eos=False)
    pair = build_pair(spec, folder)
    export_checkpoint(pair.checkpoint.source, folder / precision, precision, check=False)
    with Generator.load(folder / precision, device="cpu", threads=2) as generator:
        yield Questions(pair, generator, precision)


def bits(hypothesis: Any) -> tuple[Any, ...]:
    arrays = hypothesis.token_ids, hypothesis.token_log_probs, hypothesis.token_posteriors
    return hypothesis.score, hypothesis.log_prob, *(array.tobytes() for array in arrays)


@pytest.mark.parametrize("search", SEARCHES)
def test_an_answer_in_a_batch_is_that_of_its_question_alone(questions: Questions, search: str) -> None:
    together, alone = questions.answers(GenerationOptions(**SEARCHES[search]))
    assert [[bits(h) for h in answer] for answer in together] == [
        [bits(h) for h in answer] for answer in alone
    ]


def test_candidates_scored_together_are_equal_to_rounding(
    questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thorough RAG-Sequence reads the outputs of all questions as one trie as wide as the widest.

    Its sums are rounded otherwise than alone, by about 1e-6.  So an activation between two of its
    8-bit numbers may become the other one.  Few do, and no log-probability then moves further than the
    precision has moved some from fp32.
    """
    scored: list[tuple[Any, Any]] = []

    def recorded(model: Any, encoded: Any, outputs: Any, *given: Any) -> Any:
        found = output_log_probs(model, encoded, outputs, *given)
        scored.append((outputs, found))
        return found

    monkeypatch.setattr(rag_sequence, "output_log_probs", recorded)
    together, alone = questions.answers(GenerationOptions(**THOROUGH))
    (batch_outputs, batch), *single = scored
    moved, rounded = (
        [],
        [],
    )  # |log-probability - alone|, |log-probability - fp32's|, of every candidate's tokens
    for question, ((own_outputs,), (own,)) in enumerate(single):
        outputs = [tuple(tokens.tolist()) for tokens in batch_outputs[question]]
        assert outputs == [tuple(tokens.tolist()) for tokens in own_outputs]
        differences = [np.abs(ours - theirs) for ours, theirs in zip(batch[question], own, strict=True)]
        moved += differences
        exact = questions.float_log_probs(question, outputs)
        rounded += [np.abs(ours - float32) for ours, float32 in zip(batch[question], exact, strict=True)]
        # A log-sum-exp moves by no more than the largest of its terms.
        most = {tokens: d.sum(axis=0).max() for tokens, d in zip(outputs, differences, strict=True)}
        for one, other in zip(together[question], alone[question], strict=True):
            assert one.token_ids.tolist() == other.token_ids.tolist()
            assert abs(one.score - other.score) <= most[tuple(one.token_ids.tolist())] + SUMMED
    numbers, distances = (np.concatenate([each.ravel() for each in all_of]) for all_of in (moved, rounded))
    assert np.mean(numbers > ROUNDING) <= FLIPPED
    assert numbers.max() <= distances.max()


def test_a_question_has_the_vector_that_it_has_alone(questions: Questions) -> None:
    index = questions.pair.engine.retriever.index.path
    with Retriever.load(questions.generator.bundle, index, device="cpu", threads=2) as retriever:
        tokens = retriever.tokenize(["what?", "where is the " + "very " * 20 + "old house?", "who was it?"])
        together = retriever.encode(tokens)
        alone = [retriever.encode([own])[0] for own in tokens]
        assert [vector.tobytes() for vector in together] == [vector.tobytes() for vector in alone]
