"""The networks to start from, with random weights: `python prepare.py --data data --output start`.

Writes `start/question_encoder`, a small BERT that begins by comparing words, and `start/generator`, a small
T5 that begins by copying, with tokenizers trained on the training questions and the passages that they are
about. Nothing is downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
import torch
from tokenizers import BertWordPieceTokenizer, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizerFast, T5Config, T5ForConditionalGeneration, T5Tokenizer

from lexical import lexical_encoder, save_lexical_encoder, token_weights

SEED = 7
WORDPIECES, PIECES, LONGEST_PIECE = 3_000, 3_000, 8
MOST_TOKENS = 160
#: Gains of the queries and keys that match, of what cross-attention passes on, and of all else.
MATCH, COPY, SMALL = 0.33, 2.0, 0.3
PREVIOUS = 1  # T5's bucket of relative position -1
BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
T5_SPECIALS = ["<pad>", "</s>", "<unk>"]


def encoder_tokenizer(lines: Sequence[str]) -> BertTokenizerFast:
    """Wordpieces of the corpus."""
    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(
        lines, vocab_size=WORDPIECES, min_frequency=1, special_tokens=BERT_SPECIALS, show_progress=False
    )
    return BertTokenizerFast(vocab=trained.get_vocab(), do_lower_case=True, model_max_length=MOST_TOKENS)


def generator_tokenizer(lines: Sequence[str]) -> T5Tokenizer:
    """A unigram model of the corpus, with T5's special tokens in T5's places.

    Its pieces are short, so that names of functions that are never trained on consist of pieces that are.
    """
    trained = Tokenizer(models.Unigram())
    trained.normalizer = normalizers.NFKC()
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    letters = sorted({letter for line in lines for letter in line if not letter.isspace()})
    trainer = trainers.UnigramTrainer(
        vocab_size=PIECES,
        max_piece_length=LONGEST_PIECE,
        special_tokens=T5_SPECIALS,
        unk_token="<unk>",
        initial_alphabet=letters,
        show_progress=False,
    )
    trained.train_from_iterator(lines, trainer)
    pieces = [tuple(piece) for piece in json.loads(trained.to_str())["model"]["vocab"]]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def generator(vocabulary: int) -> T5ForConditionalGeneration:
    """A T5 of d_model 256 and 3+3 layers whose attention begins as "copy what followed this token"."""
    config = T5Config(
        vocab_size=vocabulary,
        d_model=256,
        d_kv=64,
        num_heads=4,
        d_ff=768,
        num_layers=3,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        tie_word_embeddings=True,
    )
    model = T5ForConditionalGeneration(config)
    initialise_copying(model)
    return model


@torch.no_grad()
def initialise_copying(model: T5ForConditionalGeneration) -> None:
    """Let attention begin as an induction head (Olsson et al. 2022): reading need not be discovered.

    In the encoder's first layer, head 0 looks at the previous token and writes Bᵀ A x of it; the rows of A
    and of B are orthonormal. In cross-attention queries are A y and keys B x: a token looks at what followed
    it in the prompt. The output projection undoes the value projection, so that the decoder receives the
    state it looks at, which the tied embeddings turn into that very token. All else starts small, and half of
    the later layers' cross-attention looks at similar states.
    """
    config = model.config
    size, half = config.d_kv, config.num_heads * config.d_kv // 2
    a, b = (torch.nn.init.orthogonal_(torch.empty(size, config.d_model)) for _ in range(2))
    for name, module in model.named_modules():
        if name.endswith("SelfAttention"):
            module.o.weight.mul_(SMALL)
        if name.endswith("DenseReluDense"):
            module.wo.weight.mul_(SMALL)
        if name.endswith("EncDecAttention"):
            # T5 does not divide scores by the root of the head size.
            torch.nn.init.orthogonal_(module.q.weight, gain=0.7 / size**0.25)
            module.k.weight.copy_(module.q.weight)
            followed = config.num_heads * size if ".block.0." in name else half
            module.q.weight[:followed] = MATCH * a.repeat(followed // size, 1)
            module.k.weight[:followed] = MATCH * b.repeat(followed // size, 1)
            torch.nn.init.orthogonal_(module.v.weight)
            module.o.weight.copy_(module.v.weight.T * (COPY if ".block.0." in name else SMALL))
    first = model.encoder.block[0].layer[0].SelfAttention
    first.v.weight[:size], first.o.weight[:, :size] = a, b.T
    first.relative_attention_bias.weight[PREVIOUS, 0] = 8.0


def prepare(data: Path, output: Path) -> None:
    """Write both networks with their tokenizers; nothing about dev and test functions is read."""
    torch.manual_seed(SEED)
    questions = [json.loads(line) for line in (data / "train.jsonl").read_text("utf-8").splitlines()]
    asked_about = {question["passage_id"] for question in questions}
    rows = [row.split("\t") for row in (data / "passages.tsv").read_text("utf-8").splitlines()]
    known = [parts for name, *parts in rows if name in asked_about]
    asked = [question["question"] for question in questions]
    lines = [*(part for parts in known for part in parts), *asked]

    wordpieces = encoder_tokenizer(lines)
    whole = [f"{title} {text}" for text, title in known]
    weights = token_weights(wordpieces([*whole, *asked], truncation=True)["input_ids"], len(wordpieces))
    encoder = lexical_encoder(weights, MOST_TOKENS)
    save_lexical_encoder(encoder, wordpieces, output / "question_encoder")
    click.echo(f"question_encoder: {encoder.num_parameters():,} parameters, {len(wordpieces):,} pieces")

    pieces = generator_tokenizer(lines)
    model = generator(len(pieces))
    model.save_pretrained(output / "generator")
    pieces.save_pretrained(output / "generator")
    click.echo(f"generator: {model.num_parameters():,} parameters, {len(pieces):,} pieces")


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("start"), show_default=True)
def main(data: Path, output: Path) -> None:
    """Write the networks."""
    prepare(data, output)


if __name__ == "__main__":
    main()
