"""Real shapes once, for what small models cannot show: tens of thousands of tokens, 12 layers of rounding."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import torch

from ragengine import Generator
from ragengine_bench.checkpoints.rag_checkpoint import random_spec, write_checkpoint
from ragengine_bench.parity.pairs import full_dict, full_options
from ragengine_bench.parity.reference import TIE, Reference
from ragengine_export import export_checkpoint
from tests.support.models import transformers_5

TOLERANCE = 1e-4


_COMMON: dict[str, Any] = {
    "scale_embedding": False, "tied": True, "max_combined_length": 160, "longest_passage": 30,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "bart": {
        "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_heads": 16, "decoder_heads": 16,
        "encoder_ffn": 4096, "decoder_ffn": 4096, "positions": 1024, "vocab_size": 50265,
        "activation": "gelu",
    },
    "t5": {
        "d_model": 768, "encoder_layers": 12, "encoder_heads": 12, "d_kv": 64, "encoder_ffn": 3072,
        "buckets": 32, "max_distance": 128, "vocab_size": 32128, "activation": "relu",
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bart", pytest.param("t5", marks=transformers_5)])
def test_a_real_shape(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """BART-large and T5-base."""
    spec = random_spec(2000, model_type=name, **_COMMON, **SHAPES[name])
    folder = tmp_path_factory.mktemp("large")
    checkpoint = write_checkpoint(spec, folder)
    export_checkpoint(checkpoint.source, folder / "bundle", precision="fp32", check=False)
    gc.collect()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        reference = Reference(checkpoint)
        assert reference.model.config.generator.vocab_size == SHAPES[name]["vocab_size"]
        contexts = reference.contexts(["Where is the capital of New York, and who founded it?"], 5)
        search = {"num_beams": 4, "num_return_sequences": 4, "max_length": 21, "min_length": 12}
        (expected,) = reference.decode(*contexts, full_dict(**search))
    finally:
        torch.set_num_threads(threads)
    del reference
    gc.collect()
    generator = Generator.load(folder / "bundle", device="cpu", threads=2)
    defaults = generator.default_options
    tokens = {token: getattr(defaults, token) for token in ("eos_token_id", "decoder_start_token_id")}
    (ours,) = generator.generate(*contexts, full_options(**tokens, **search))

    scores = [h.score for h in expected.hypotheses]
    np.testing.assert_allclose([h.score for h in ours], scores, rtol=0, atol=TOLERANCE)
    if expected.margin >= TIE:
        our_ids = [[int(token) for token in h.token_ids] for h in ours]
        assert our_ids == [h.token_ids for h in expected.hypotheses]
