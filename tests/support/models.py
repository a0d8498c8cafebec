"""Small real models for tests."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    DPRConfig,
    DPRContextEncoder,
    DPRQuestionEncoder,
    PreTrainedModel,
)

from ragengine_bench.checkpoints.generators import GENERATORS
from ragengine_bench.checkpoints.rag_checkpoint import random_spec
from ragengine_bench.checkpoints.tokenizers import train_generator_tokenizer, train_question_tokenizer
from ragengine_bench.parity.pairs import Pair, build_pair

transformers_5 = pytest.mark.skipif(
    int(transformers.__version__.split(".")[0]) < 5,
    reason="the tokenizers of random checkpoints other than BART's are made with classes of transformers 5",
)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A random checkpoint with bundle, index and a loaded engine; tests do not change its files."""
    return build_pair(random_spec(1001), tmp_path_factory.mktemp("pair"))


def save_dpr(folder: Path, *, context: bool = False, seed: int = 0, **config: object) -> Path:
    """Save a DPR question or context encoder with a WordPiece tokenizer; equal seeds, equal weights."""
    tokenizer = train_question_tokenizer(np.random.default_rng(0), 250, None, folder / "trained")
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 30}
    sizes |= {"vocab_size": len(tokenizer), "max_position_embeddings": 64, **config}
    torch.manual_seed(seed)
    model = (DPRContextEncoder if context else DPRQuestionEncoder)(DPRConfig(**sizes))
    randomised(model, seed).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def save_bart(folder: Path, *, seed: int = 0, **config: object) -> Path:
    """Save a BART with a byte-level BPE tokenizer."""
    tokenizer = train_generator_tokenizer(np.random.default_rng(0), 330, folder / "trained")
    sizes: dict[str, object] = {"d_model": 24, "encoder_layers": 2, "decoder_layers": 1}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 4}
    sizes |= {"encoder_ffn_dim": 31, "decoder_ffn_dim": 37, "max_position_embeddings": 96}
    sizes |= {"vocab_size": len(tokenizer), **config}
    torch.manual_seed(seed)
    model = randomised(BartForConditionalGeneration(BartConfig(**sizes)), seed)
    if "final_logits_bias" in config:
        torch.nn.init.normal_(model.final_logits_bias)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def save_generator(folder: Path, name: str, *, seed: int = 0, **spec: object) -> Path:
    """Save a random generator of `checkpoints.generators.GENERATORS` with its own tokenizer.

    ``spec`` are fields of :class:`~ragengine_bench.checkpoints.spec.CheckpointSpec`.
    """
    made, sizes = GENERATORS[name], random_spec(seed, model_type=name, **spec)
    tokenizer = made.tokenizer(np.random.default_rng(seed), sizes.generator_tokens, folder / "trained")
    torch.manual_seed(seed)
    model = AutoModelForSeq2SeqLM.from_config(made.config(sizes, len(tokenizer), tokenizer))
    randomised(model, seed).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def randomised(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Give every weight a random value, biases and norms too, so that a forgotten one is noticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()
