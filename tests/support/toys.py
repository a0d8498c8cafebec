"""Models with so few tokens that every output can be enumerated: exact probabilities and best answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from ragengine import Generator
from ragengine_bench.checkpoints.rag_checkpoint import random_spec, write_checkpoint
from ragengine_bench.parity.margins import RecordingRagToken
from ragengine_export import export_checkpoint

START = EOS = 2
V = 7


@dataclass(frozen=True)
class Toy:
    """A model of V tokens that reads two questions' documents; the same weights on both sides."""

    generator: Generator
    model: RecordingRagToken
    ids: np.ndarray  # int64 [2, D, S]
    mask: np.ndarray
    doc_scores: np.ndarray  # float32 [2, D]

    @property
    def log_prior(self) -> np.ndarray:
        """log p(z | x), float64 [2, D]."""
        scores = self.doc_scores.astype(np.float64)
        return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)

    @torch.no_grad()
    def next_log_probs(self, question: int, prefixes: list[tuple[int, ...]]) -> np.ndarray:
        """HF's log p(· | x, z, y_<t) after each of some equally long prefixes: float64 [N, D, V]."""
        bart, d = self.model.rag.generator, self.ids.shape[1]
        n = len(prefixes)
        logits = bart(
            input_ids=torch.tensor(self.ids[question]).repeat(n, 1),
            attention_mask=torch.tensor(self.mask[question]).repeat(n, 1),
            decoder_input_ids=torch.tensor([[START, *prefix] for prefix in prefixes]).repeat_interleave(d, 0),
            use_cache=False,
        ).logits[:, -1]
        return logits.double().log_softmax(-1).view(n, d, -1).numpy()

    def outputs(self, question: int, longest: int) -> dict[tuple[int, ...], np.ndarray]:
        """Every output of at most `longest` tokens, with its log p(y_t | x, z, y_<t), float64 [T, D]."""
        found: dict[tuple[int, ...], np.ndarray] = {}
        running: dict[tuple[int, ...], np.ndarray] = {(): np.zeros((0, self.ids.shape[1]))}
        for length in range(1, longest + 1):
            following = self.next_log_probs(question, list(running))
            longer = {}
            for (prefix, so_far), rows in zip(running.items(), following, strict=True):
                for token in range(V):
                    ended = token == EOS or length == longest
                    (found if ended else longer)[(*prefix, token)] = np.vstack([so_far, rows[:, token]])
            running = longer
        return found

    def warped(self, scores: np.ndarray, num_beams: int = 1, **options: Any) -> np.ndarray:
        """log-probabilities [N, V] after transformers' warpers, normalised."""
        config = GenerationConfig(
            do_sample=True,
            num_beams=num_beams,
            eos_token_id=EOS,
            pad_token_id=1,
            decoder_start_token_id=START,
            **options,
        )
        self.model._prepare_special_tokens(config, True)
        processors = self.model._get_logits_processor(config, input_ids_seq_length=1, device="cpu")
        prefix = torch.full((len(scores), 1), START)
        result: np.ndarray = processors(prefix, torch.tensor(scores)).log_softmax(-1).numpy()
        return result


def build_toy(seed: int, folder: Path) -> Toy:
    """Build the toy of a seed, with D = 3 documents."""
    spec = random_spec(seed, vocab_size=V, eos_shift=0.3, forced_bos=False, forced_eos=False, peak=1.6)
    checkpoint = write_checkpoint(spec, folder)
    _shrink_tokenizer(checkpoint.source / "generator_tokenizer" / "tokenizer.json")
    export_checkpoint(checkpoint.source, folder / "bundle", precision="fp32", check=False)
    rng = np.random.default_rng(seed)
    mask = np.ones((2, 3, 9), np.int64)
    mask[:, 1, 6:] = 0
    return Toy(
        generator=Generator.load(folder / "bundle", device="cpu", threads=1),
        model=RecordingRagToken.from_pretrained(checkpoint.source, dtype=torch.float32).eval(),
        ids=np.where(mask, rng.integers(3, V, mask.shape), 1),
        mask=mask,
        doc_scores=rng.normal(size=(2, 3)).astype(np.float32),
    )


def _shrink_tokenizer(path: Path) -> None:
    """Keep V tokens: a bundle whose tokenizer has token ids beyond the model's vocabulary is refused."""
    content = json.loads(path.read_text("utf-8"))
    kept = {token: number for token, number in content["model"]["vocab"].items() if number < V}
    content["model"] |= {"vocab": kept, "merges": []}
    path.write_text(json.dumps(content), "utf-8")


def sequence_likelihood(log_prior: np.ndarray, log_probs: np.ndarray) -> float:
    """The paper's RAG-Sequence: log Σ_z p(z|x) Π_t p(y_t|x,z,y_<t); log_prior [D], log_probs [T, D]."""
    return float(np.logaddexp.reduce(log_prior + log_probs.sum(axis=0)))


def token_likelihood(log_prior: np.ndarray, log_probs: np.ndarray) -> float:
    """The paper's RAG-Token: log Π_t Σ_z p(z|x) p(y_t|x,z,y_<t)."""
    return float(np.logaddexp.reduce(log_prior + log_probs, axis=1).sum())
