"""Real tokenizers for the random checkpoints, trained in milliseconds on a few lines of text.

They go through the files that transformers itself reads and writes (vocab.txt, vocab.json, merges.txt,
tokenizer.json), so that the export reads what it reads of real checkpoints.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import ByteLevelBPETokenizer, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import Unigram
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import (
    BartTokenizerFast,
    ByT5Tokenizer,
    DPRQuestionEncoderTokenizerFast,
    MBart50Tokenizer,
    MBartTokenizer,
    PegasusTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Tokenizer,
)

from ragengine_bench.checkpoints.corpus import training_text

BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BART_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # ids 0 to 3 as facebook/bart-large has them


def train_question_tokenizer(
    rng: np.random.Generator, vocab_size: int, clean_up_tokenization_spaces: bool | None, folder: Path
) -> PreTrainedTokenizerBase:
    """An uncased WordPiece tokenizer, as DPR's.

    `clean_up_tokenization_spaces` decides whether the question that the generator reads says "isn ' t" or
    "isn't"; None leaves transformers' default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocab = _wordpiece_vocab(training_text(rng), vocab_size)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocab), encoding="utf-8")
    extra = {}
    if clean_up_tokenization_spaces is not None:
        extra["clean_up_tokenization_spaces"] = clean_up_tokenization_spaces
    return DPRQuestionEncoderTokenizerFast.from_pretrained(str(folder), do_lower_case=True, **extra)


def train_generator_tokenizer(
    rng: np.random.Generator, vocab_size: int, folder: Path
) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer, as BART's. Fewer than 256 + 5 entries are not possible."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        training_text(rng),
        vocab_size=vocab_size,
        min_frequency=1,
        special_tokens=BART_SPECIALS,
        show_progress=False,
    )
    folder.mkdir(parents=True, exist_ok=True)
    trained.save_model(str(folder))
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    if [vocab[token] for token in BART_SPECIALS] != list(range(len(BART_SPECIALS))):
        raise AssertionError(f"the special tokens are not first in the vocabulary of {folder}")
    return BartTokenizerFast.from_pretrained(str(folder))


def t5_tokenizer(rng: np.random.Generator, vocab_size: int, folder: Path) -> PreTrainedTokenizerBase:
    """T5's own tokenizer: SentencePiece unigram, pad 0, end 1, unknown 2, sentinels last."""
    sentinels = [f"<extra_id_{number}>" for number in (1, 0)]
    vocabulary = _unigram_vocabulary(rng, ["<pad>", "</s>", "<unk>"], vocab_size - 2)
    return T5Tokenizer(vocab=[*vocabulary, *((token, 0.0) for token in sentinels)], extra_ids=2)


def byt5_tokenizer(rng: np.random.Generator, vocab_size: int, folder: Path) -> PreTrainedTokenizerBase:
    """ByT5's own tokenizer: bytes, whatever ``vocab_size`` is."""
    return ByT5Tokenizer(extra_ids=4)


def mbart_tokenizer(rng: np.random.Generator, vocab_size: int, folder: Path) -> PreTrainedTokenizerBase:
    """mBART's own tokenizer: unigram, a text is followed by its end and its language code."""
    vocabulary = _unigram_vocabulary(rng, BART_SPECIALS[:4], vocab_size)
    return MBartTokenizer(vocab=vocabulary, src_lang="en_XX")


def mbart50_tokenizer(rng: np.random.Generator, vocab_size: int, folder: Path) -> PreTrainedTokenizerBase:
    """mBART-50's own tokenizer: unigram, a text has its language code before and its end after it."""
    vocabulary = _unigram_vocabulary(rng, BART_SPECIALS[:4], vocab_size)
    return MBart50Tokenizer(vocab=vocabulary, src_lang="en_XX")


def pegasus_tokenizer(rng: np.random.Generator, vocab_size: int, folder: Path) -> PreTrainedTokenizerBase:
    """Pegasus' own tokenizer: unigram, pad 0, end 1, masks, fewer tokens for pretraining than it has."""
    specials = ["<pad>", "</s>", "<mask_1>", "<mask_2>", "<unk_2>", "<unk_3>", "<unk>"]
    return PegasusTokenizer(vocab=_unigram_vocabulary(rng, specials, vocab_size), offset=4)


def plbart_tokenizer(rng: np.random.Generator, vocab_size: int, folder: Path) -> PreTrainedTokenizerBase:
    """A unigram tokenizer as PLBart's: a text is followed by its end and its language code."""
    codes = ["java", "python", "en_XX"]
    vocabulary = [*_unigram_vocabulary(rng, BART_SPECIALS[:4], vocab_size), *((code, 0.0) for code in codes)]
    return _unigram_tokenizer(
        vocabulary, "$A </s> en_XX", bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=codes,
    )  # fmt: skip


def marian_tokenizer(rng: np.random.Generator, vocab_size: int, folder: Path) -> PreTrainedTokenizerBase:
    """A unigram tokenizer as Marian's: end 0, unknown 1, the pad last."""
    vocabulary = [*_unigram_vocabulary(rng, ["</s>", "<unk>"], vocab_size - 1), ("<pad>", 0.0)]
    return _unigram_tokenizer(vocabulary, "$A </s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _unigram_tokenizer(
    vocabulary: list[tuple[str, float]], template: str, **special: Any
) -> PreTrainedTokenizerBase:
    """A tokenizer that transformers knows by no class of its own."""
    ids = {token: number for number, (token, _) in enumerate(vocabulary)}
    tokenizer = Tokenizer(Unigram(vocabulary, unk_id=ids["<unk>"], byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    around = [(token, ids[token]) for token in template.split() if token != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=around)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def _unigram_vocabulary(
    rng: np.random.Generator, specials: list[str], vocab_size: int
) -> list[tuple[str, float]]:
    """Special tokens, every character, then the most frequent pieces of words, with their log-frequencies.

    As SentencePiece has it, but for the same text always the same.
    """
    words = Counter(f"▁{word}" for line in training_text(rng) for word in line.split())
    pieces: Counter[str] = Counter()
    for word, count in words.items():
        for start in range(len(word)):
            for end in range(start + 1, min(start + 12, len(word)) + 1):
                pieces[word[start:end]] += count * (end - start)
    letters = sorted(piece for piece in pieces if len(piece) == 1)
    ranked = sorted(pieces, key=lambda piece: (-pieces[piece], piece))
    chosen = [*letters, *(piece for piece in ranked if len(piece) > 1)][: max(vocab_size, len(letters))]
    total = sum(pieces[piece] for piece in chosen)
    scores = [(piece, float(np.log(pieces[piece] / total))) for piece in chosen]
    return [*((token, 0.0) for token in specials), *scores]


def _wordpiece_vocab(lines: list[str], vocab_size: int) -> list[str]:
    """A WordPiece vocabulary: every character, then the most frequent beginnings and continuations of words.

    `tokenizers` can train one, but not the same one twice: its order of equally frequent pieces changes from
    process to process, and with it the checkpoint.
    """
    words: Counter[str] = Counter()
    for line in lines:
        normal = BertNormalizer(lowercase=True).normalize_str(line)
        words.update(word for word, _ in BertPreTokenizer().pre_tokenize_str(normal))
    letters = sorted({letter for word in words for letter in word})
    pieces: Counter[str] = Counter()
    for word, count in words.items():
        for cut in range(2, len(word)):
            pieces[word[:cut]] += count
            pieces["##" + word[cut - 1 :]] += count
        pieces[word] += 2 * count
    vocab = [*BERT_SPECIALS, *letters, *(f"##{letter}" for letter in letters)]
    ranked = sorted(pieces, key=lambda piece: (-pieces[piece], piece))
    return [*vocab, *(piece for piece in ranked if piece not in set(vocab))][: max(vocab_size, len(vocab))]
