"""Random checkpoints whose next-token distributions are peaked: a search can be measured on them."""

from pathlib import Path

import tokenizers
import torch
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    DPRConfig,
    PreTrainedTokenizerFast,
    RagConfig,
    RagTokenForGeneration,
)

VOCABULARY, POSITIONS, EOS = 300, 96, 2


@torch.no_grad()
def write_peaked_checkpoint(folder: Path, seed: int) -> None:
    """Save a small RAG checkpoint whose next-token distributions differ from step to step and are peaked.

    Freshly initialised weights give every token about the same probability, so that every search finds an
    equally likely answer.  Here weights have the scale of trained ones, and a bias ends outputs after about
    ten tokens.
    """
    torch.manual_seed(seed)
    d_model = 16 * int(torch.randint(1, 4, ()))
    sizes = {"d_model": d_model, "encoder_ffn_dim": 2 * d_model, "decoder_ffn_dim": 2 * d_model}
    bart = BartConfig(
        **sizes,
        vocab_size=VOCABULARY,
        encoder_layers=2,
        decoder_layers=int(torch.randint(1, 4, ())),
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        max_position_embeddings=POSITIONS,
    )
    dpr = DPRConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    config = RagConfig.from_question_encoder_generator_configs(dpr, bart, retrieval_vector_size=8)
    model = RagTokenForGeneration(config).eval()
    _peak(model.rag.generator, peak=2.0 + 1.5 * float(torch.rand(())))
    model.generation_config.update(decoder_start_token_id=EOS, eos_token_id=EOS, pad_token_id=1)
    model.save_pretrained(folder)
    words = {"<s>": 0, "<pad>": 1, "</s>": EOS, "<unk>": 3}
    model_of_words = tokenizers.models.WordLevel(words, unk_token="<unk>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(model_of_words), pad_token="<pad>", eos_token="</s>"
    )
    for part in ("question_encoder_tokenizer", "generator_tokenizer"):
        tokenizer.save_pretrained(folder / part)


def _peak(generator: BartForConditionalGeneration, peak: float) -> None:
    """Give logits the standard deviation ``peak`` and no part that is the same for all inputs.

    Decoder states share a large mean, which the last layer norm subtracts.
    """
    for module in generator.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1.3 / module.in_features**0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.15)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=peak / module.embedding_dim**0.5)
    generator.tie_weights()
    contexts, outputs = torch.randint(4, VOCABULARY, (16, 24)), torch.randint(4, VOCABULARY, (16, 16))
    states = generator.model(input_ids=contexts, decoder_input_ids=outputs)[0].flatten(0, 1)
    scale = peak / ((states - states.mean(0)) @ generator.lm_head.weight.T).std()
    norm = generator.model.decoder.layers[-1].final_layer_norm
    norm.bias -= states.mean(0)
    norm.bias *= scale
    norm.weight *= scale
    generator.final_logits_bias.zero_()
    generator.final_logits_bias[0, EOS] = 1.6 * peak
