"""A random transformers checkpoint with the sizes and the tokenizers of a bundle.

It stands for the checkpoint that a bundle was exported from where that is not at hand: it takes as long, and
its answers mean nothing.
"""

from pathlib import Path

import torch
import transformers.utils.logging
from transformers import BartConfig, DPRConfig, PreTrainedTokenizerFast, RagConfig, RagTokenForGeneration

from ragengine.bundle.bundle import Bundle
from ragengine.bundle.manifest import EncoderSpec, GeneratorSpec
from ragengine_bench.roofline.sizes import sizes_of


def write_bundle_shaped_checkpoint(bundle: Path, folder: Path) -> None:
    """Save a RAG-Token checkpoint, seed 0, like the one that ``bundle`` came from."""
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    manifest, sizes = Bundle.open(bundle, verify="size").manifest, sizes_of(bundle)
    generator, question = manifest.generator, sizes.question_encoder
    specs: dict[str, EncoderSpec | GeneratorSpec] = {
        "generator_tokenizer": generator,
        "question_encoder_tokenizer": manifest.question_encoder,
    }
    vocabulary = {}
    for part, spec in specs.items():
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(bundle / spec.path / "tokenizer.json"),
            model_max_length=spec.tokenizer.max_length,
        )
        pad = tokenizer.convert_ids_to_tokens(spec.tokenizer.pad_token_id)
        tokenizer.add_special_tokens({"pad_token": pad})
        tokenizer.save_pretrained(str(folder / part))
        vocabulary[part] = len(tokenizer)
    sizes_of_bart = sizes.generator
    bart = BartConfig(
        vocab_size=generator.vocab_size,
        d_model=sizes_of_bart.d_model,
        encoder_layers=sizes_of_bart.encoder_layers,
        decoder_layers=sizes_of_bart.decoder_layers,
        encoder_attention_heads=generator.num_heads,
        decoder_attention_heads=generator.num_heads,
        encoder_ffn_dim=sizes_of_bart.encoder_ffn,
        decoder_ffn_dim=sizes_of_bart.decoder_ffn,
        max_position_embeddings=generator.max_positions,
    )
    dpr = DPRConfig(
        vocab_size=vocabulary["question_encoder_tokenizer"],
        hidden_size=question.hidden,
        num_hidden_layers=question.layers,
        num_attention_heads=max(1, question.hidden // 64),
        intermediate_size=question.ffn,
        projection_dim=question.head if question.head != question.hidden else 0,
        max_position_embeddings=512,
    )
    config = RagConfig.from_question_encoder_generator_configs(
        dpr,
        bart,
        retrieval_vector_size=manifest.question_encoder.dimension,
        n_docs=manifest.rag.n_docs,
        max_combined_length=manifest.rag.max_combined_length,
    )
    model = RagTokenForGeneration(config).eval()
    model.generation_config.update(
        decoder_start_token_id=2, eos_token_id=2, pad_token_id=generator.pad_token_id
    )
    model.save_pretrained(str(folder))
