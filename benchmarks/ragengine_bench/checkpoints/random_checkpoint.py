"""Random checkpoints of a real shape, to measure speed; their answers mean nothing."""

from pathlib import Path

import tokenizers
import torch
import transformers.utils.logging
from transformers import (
    BartConfig,
    DPRConfig,
    MBartConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RagConfig,
    RagTokenForGeneration,
    T5Config,
)

from ragengine_bench.checkpoints.shapes import Shape

RAG, GENERATOR = "rag", "generator"


def write_random_checkpoint(shape: Shape, folder: Path, dimension: int = 32) -> None:
    """Save a RAG-Token checkpoint (``folder/rag``, with a tiny question encoder of ``dimension``) and its
    generator alone (``folder/generator``, what engines without RAG read), seed 0.
    """
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    generator = _config(shape)
    dpr = DPRConfig(
        vocab_size=8, hidden_size=dimension, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    config = RagConfig.from_question_encoder_generator_configs(
        dpr, generator, retrieval_vector_size=dimension
    )
    model = RagTokenForGeneration(config).eval()
    model.generation_config.update(
        decoder_start_token_id=generator.decoder_start_token_id,
        eos_token_id=generator.eos_token_id,
        pad_token_id=generator.pad_token_id,
    )
    model.save_pretrained(folder / RAG)
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    model_of_words = tokenizers.models.WordLevel(words, unk_token="<unk>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(model_of_words), pad_token="<pad>", eos_token="</s>"
    )
    for part in ("question_encoder_tokenizer", "generator_tokenizer"):
        tokenizer.save_pretrained(folder / RAG / part)
    model.rag.generator.save_pretrained(folder / GENERATOR)  # no tokenizer: it is given token ids


def _config(shape: Shape) -> PretrainedConfig:
    if shape.model_type == "t5":
        return T5Config(
            vocab_size=shape.vocabulary,
            d_model=shape.d_model,
            d_kv=shape.d_model // shape.heads,
            d_ff=shape.ffn,
            num_layers=shape.layers,
            num_heads=shape.heads,
            decoder_start_token_id=0,
            bos_token_id=None,  # `RagSequenceForGeneration` reads it
        )
    kind = {"bart": BartConfig, "mbart": MBartConfig}[shape.model_type]
    return kind(
        vocab_size=shape.vocabulary,
        d_model=shape.d_model,
        encoder_layers=shape.layers,
        decoder_layers=shape.layers,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        encoder_ffn_dim=shape.ffn,
        decoder_ffn_dim=shape.ffn,
        max_position_embeddings=shape.positions,
        decoder_start_token_id=2,
    )
