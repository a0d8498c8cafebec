"""Random encoders of every family and pooling: our vectors of padded batches, torch's of each text alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ragengine.runtime.sessions import create_session
from ragengine_export.choices import POOLINGS
from ragengine_export.encoder_families import ENCODERS
from ragengine_export.encoders import EncoderCheckpoint, encoder_of
from ragengine_export.export import _write_encoder
from ragengine_export.reference_vectors import torch_vectors
from ragengine_export.weights import WeightWriter
from tests.support.sentence_folders import make_encoder, make_tokenizer

TOLERANCE = 1e-4


def random_encoder(family: str, seed: int) -> EncoderCheckpoint:
    """Random sizes, activation and pooling; some texts are as long as its positions."""
    rng = np.random.default_rng([seed, sorted(ENCODERS).index(family)])
    heads = int(rng.integers(1, 5))
    tokenizer = make_tokenizer(family)
    positions = int(rng.integers(12, 120))
    sizes: dict[str, Any] = {
        "hidden_size": 2 * heads * int(rng.integers(2, 9)),
        "num_attention_heads": heads,
        "num_hidden_layers": int(rng.integers(1, 4)),
        "intermediate_size": int(rng.integers(5, 60)),
        "max_position_embeddings": positions,
        "hidden_act": str(rng.choice(["gelu", "relu", "gelu_new", "silu"])),
    }
    model = make_encoder(family, len(tokenizer) + int(rng.integers(0, 9)), rng, **sizes)
    return encoder_of(family, model, tokenizer, POOLINGS[seed % len(POOLINGS)])


def largest_difference(encoder: EncoderCheckpoint, folder: Path, seed: int) -> float:
    """Between the graph's vectors of a padded batch and torch's of each text, as a share of the largest."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    with WeightWriter(folder) as weights:
        _write_encoder(encoder, folder, weights, "fp32")
    session = create_session(folder / "encoder.onnx", device="cpu", threads=1)
    lengths = [encoder.max_length, *rng.integers(1, encoder.max_length + 1, 4).tolist()]
    ids = rng.integers(0, encoder.shape.vocab_size, (len(lengths), max(lengths)))
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    (ours,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
    expected = [
        torch_vectors(encoder, torch.tensor(row[None, :n]), torch.ones(1, n, dtype=torch.int64))[0].numpy()
        for row, n in zip(ids, lengths, strict=True)
    ]
    return float(np.abs(ours - expected).max() / max(1.0, np.abs(expected).max()))


def check_seeds(family: str, seeds: range, folder: Path) -> None:
    differences = [
        largest_difference(random_encoder(family, seed), folder / str(seed), seed) for seed in seeds
    ]
    print(f"\n{family}: {len(seeds)} encoders, largest difference {max(differences):.1e}")
    assert max(differences) < TOLERANCE


@pytest.mark.parametrize("family", ENCODERS)
def test_random_encoders(family: str, tmp_path: Path) -> None:
    check_seeds(family, range(len(POOLINGS)), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", ENCODERS)
def test_a_hundred_random_encoders(family: str, tmp_path: Path) -> None:
    check_seeds(family, range(100), tmp_path)
