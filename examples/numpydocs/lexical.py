"""An encoder that begins by comparing words: untrained, it ranks passages about as tf-idf does.

Random vectors are almost orthogonal, so the inner product of two bags of them counts the tokens that the bags
share (Johnson and Lindenstrauss). What is learned afterwards need not find out that a name is the same name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerBase

from ragengine_export.graphs.text_encoder import DenseShape
from ragengine_export.sentence_writer import SentenceFiles, write_sentence_files

WIDTH, FILLER = 384, 16
#: Exponent of the weight of a token; factor of vectors of length 1, whose inner products reach its square.
SHARPNESS, SCALE = 0.75, 4.5
#: Gain of what a layer adds to a state.
SMALL = 0.3


def token_weights(rows: Iterable[Sequence[int]], vocabulary: int) -> torch.Tensor:
    """Weights [vocabulary] in (0, 1], from the share of the rows that a token is in (Spärck Jones 1972)."""
    counts, total = Counter[int](), 0
    for row in rows:
        counts.update(set(row))
        total += 1
    share = torch.tensor([(counts[token] + 1) / (total + 1) for token in range(vocabulary)])
    rarity = -share.clamp(max=1).log()
    return (rarity / rarity.max()) ** SHARPNESS


def lexical_encoder(weights: torch.Tensor, most_tokens: int) -> BertModel:
    """Two layers of BERT that change little of what enters them: a random vector for each token.

    BERT normalises states, so a token's weight is the share of the vector outside the last ``FILLER``
    numbers; they hold the rest, and the last normalisation leaves them out.
    """
    config = BertConfig(
        vocab_size=len(weights),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=6,
        intermediate_size=768,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=most_tokens,
        pad_token_id=0,
    )
    model = BertModel(config)
    words = torch.randn(len(weights), WIDTH - FILLER)
    words = torch.nn.functional.normalize(words - words.mean(1, keepdim=True), dim=1)
    filler = torch.tensor([1.0, -1.0]).repeat(FILLER // 2) / FILLER**0.5
    with torch.no_grad():
        own, rest = weights[:, None], (1 - weights[:, None] ** 2).clamp(min=0).sqrt()
        embeddings = model.embeddings
        embeddings.word_embeddings.weight.copy_(WIDTH**0.5 * torch.cat([own * words, rest * filler], dim=1))
        embeddings.position_embeddings.weight.mul_(SMALL)
        embeddings.token_type_embeddings.weight.zero_()
        for layer in model.encoder.layer:
            for dense in (layer.attention.output.dense, layer.output.dense):
                dense.weight.mul_(SMALL)
        model.encoder.layer[-1].output.LayerNorm.weight[-FILLER:] = 0.0
    return model


def save_lexical_encoder(model: BertModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a sentence-transformers folder; a vector is the mean state at length 1, through a linear map.

    By length 1 a long passage is not worse than a short one. The map begins as ``SCALE`` times the identity.
    """
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    shape = DenseShape("dense", WIDTH, WIDTH, False, "")
    files = SentenceFiles(
        width=WIDTH,
        pooling=("mean",),
        include_prompt=True,
        steps=("normalize", shape),
        weights={"dense.weight": SCALE * np.eye(WIDTH, dtype=np.float32)},
        similarity="inner_product",
        prompts={},
        max_length=tokenizer.model_max_length,
        lower_case=False,
    )
    write_sentence_files(files, folder)
