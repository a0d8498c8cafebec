"""Real tokenizers for the random checkpoints, trained in milliseconds on a few lines of text.

They go through the files that transformers itself reads and writes (vocab.txt, vocab.json, merges.txt,
tokenizer.json), so that the export reads what it reads of real checkpoints.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
from tokenizers import ByteLevelBPETokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import BartTokenizerFast, DPRQuestionEncoderTokenizerFast, PreTrainedTokenizerBase

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
