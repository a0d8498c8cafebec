"""ByT5's tokenizer, which transformers has in Python alone, as a `tokenizer.json`."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

_BYTES = 256


def fast_byte_tokenizer(tokenizer: ByT5Tokenizer) -> PreTrainedTokenizerBase:
    """The same tokens of every text: byte b is token b + 3, special tokens are before and after.

    Bytes that are no UTF-8 vanish when tokens become text, as in `ByT5Tokenizer.convert_tokens_to_string`; so
    does U+FFFD, by which the decoder marks them.
    """
    added = dict(sorted(tokenizer.added_tokens_decoder.items()))
    vocabulary = {token.content: number for number, token in added.items() if number < tokenizer.offset}
    vocabulary |= {letter: byte + tokenizer.offset for byte, letter in enumerate(_letters())}
    fast = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=tokenizer.unk_token))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("\ufffd", "")])
    fast.add_special_tokens(list(added.values()))
    end = tokenizer.eos_token
    fast.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token=tokenizer.pad_token,
        eos_token=end,
        unk_token=tokenizer.unk_token,
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        split_special_tokens=tokenizer.split_special_tokens,
        clean_up_tokenization_spaces=tokenizer.clean_up_tokenization_spaces,
    )


def _letters() -> list[str]:
    """The letter by which `ByteLevel` writes each byte: itself where it can be seen, else one past U+00FF."""
    seen = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(_BYTES, 2 * _BYTES))
    return [chr(byte if byte in seen else next(others)) for byte in range(_BYTES)]
