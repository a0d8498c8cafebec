"""Random checkpoints of a true shape: right for speed, meaningless as answers."""

from pathlib import Path

import tokenizers
import torch
from transformers import BartConfig, DPRConfig, PreTrainedTokenizerFast, RagConfig, RagTokenForGeneration

# d_model, layers (encoder and decoder each), heads, feed-forward, vocabulary, positions
_BART = {
    "worldfacts": (256, 3, 4, 1024, 8000, 320),
    "bart-base": (768, 6, 12, 3072, 50265, 1024),
    "bart-large": (1024, 12, 16, 4096, 50265, 1024),
}
SHAPES = tuple(_BART)


def write_random_checkpoint(shape: str, folder: Path) -> None:
    """Save a RAG-Token checkpoint with a BART of ``shape`` and a tiny question encoder, seed 0."""
    torch.manual_seed(0)
    d_model, layers, heads, ffn, vocabulary, positions = _BART[shape]
    bart = BartConfig(
        vocab_size=vocabulary,
        d_model=d_model,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=ffn,
        decoder_ffn_dim=ffn,
        max_position_embeddings=positions,
    )
    dpr = DPRConfig(
        vocab_size=8, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    config = RagConfig.from_question_encoder_generator_configs(dpr, bart, retrieval_vector_size=32)
    model = RagTokenForGeneration(config).eval()
    model.generation_config.update(decoder_start_token_id=2, eos_token_id=2, pad_token_id=1)
    model.save_pretrained(folder)
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    model_of_words = tokenizers.models.WordLevel(words, unk_token="<unk>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(model_of_words), pad_token="<pad>", eos_token="</s>"
    )
    for part in ("question_encoder_tokenizer", "generator_tokenizer"):
        tokenizer.save_pretrained(folder / part)
