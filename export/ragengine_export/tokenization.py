"""Tokenizers of checkpoints: transformers loads them, and a bundle keeps all that decides their tokens."""

from typing import Any

from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from ragengine.bundle.manifest import TokenizerSpec
from ragengine.errors import ExportError
from ragengine.messages import short_repr
from ragengine_export.byte_tokenizer import fast_byte_tokenizer
from ragengine_export.loading import loaded


def load_tokenizer(source: str, subfolder: str = "", config: Any = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint, of any class; without a longest input, transformers says it is 1e30.

    Args:
        source: a folder or hub name.
        subfolder: the folder in ``source`` that holds the tokenizer.
        config: the config of the model that it belongs to: it decides the class where the folder names none,
            as in ``RagTokenizer.from_pretrained``.

    Raises:
        ExportError: it cannot be loaded, brings code, has no vocabulary, or its longest input is no number.
    """

    def load(name: str) -> PreTrainedTokenizerBase:
        given = {} if config is None else {"config": config}
        return AutoTokenizer.from_pretrained(name, subfolder=subfolder, trust_remote_code=False, **given)

    place = f"{source}/{subfolder}" if subfolder else source
    settings = loaded(source, lambda name: get_tokenizer_config(name, subfolder=subfolder))
    if settings.get("auto_map"):
        raise ExportError(
            f"{place} brings code of its own (auto_map in tokenizer_config.json), which is never run; save "
            "it with a tokenizer class of transformers first."
        )
    tokenizer = loaded(source, load)
    if not tokenizer.get_vocab().keys() - tokenizer.all_special_tokens:  # what transformers makes of no files
        files = {name: file for name, file in tokenizer.vocab_files_names.items() if name != "tokenizer_file"}
        raise ExportError(
            f"{place} has no tokenizer: tokenizer.json is missing, and so is {' and '.join(files.values())}, "
            f"of which {type(tokenizer).__name__} is made; copy them from the model that it was trained from."
        )
    longest = tokenizer.model_max_length
    if isinstance(longest, bool) or not isinstance(longest, int | float) or not longest >= 1:
        raise ExportError(
            f"The tokenizer of {source} has the model_max_length {short_repr(longest)}; it must be a number "
            "of tokens, 1 or more."
        )
    return tokenizer


def load_fast_tokenizer(source: str, subfolder: str = "", config: Any = None) -> PreTrainedTokenizerBase:
    """As :func:`load_tokenizer`, one that can be saved as `tokenizer.json`."""
    tokenizer = load_tokenizer(source, subfolder, config)
    if isinstance(tokenizer, ByT5Tokenizer):
        return fast_byte_tokenizer(tokenizer)
    if not tokenizer.is_fast:
        raise ExportError(f"The tokenizer of {source} has no tokenizer.json; save it with a fast tokenizer.")
    return tokenizer


def check_padding(source: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise :class:`ExportError` for padding on the left, where a generator's positions are absolute.

    `RagRetriever.postprocess_docs` pads to ``max_combined_length``, so each document would begin at another
    position; a bundle pads to the longest document, on the right.
    """
    if tokenizer.padding_side == "left":
        raise ExportError(
            f"The generator's tokenizer of {source} has padding_side left, which moves every document "
            'to other positions, where a bundle pads on the right; set "padding_side": "right" in its '
            "tokenizer_config.json."
        )


def tokenizer_spec(tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenizerSpec:
    """What the runtime must know beside `tokenizer.json`.

    Whether ``decode`` cleans up spaces depends on the tokenizer's flag, its kind and the version of
    transformers, so it is asked rather than derived.  Truncation and padding that `tokenizer.json` brings are
    attributes by now, or nothing: transformers sets both anew for each call.
    """
    ids = tokenizer("a . b , c ! d ? it 's", add_special_tokens=False)["input_ids"]
    untouched = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    cleans_up = tokenizer.decode(ids, skip_special_tokens=True) != untouched
    return TokenizerSpec(
        pad_token_id=int(tokenizer.pad_token_id or 0),
        max_length=max_length,
        clean_up_tokenization_spaces=cleans_up,
        truncation_side=tokenizer.truncation_side,
        split_special_tokens=bool(tokenizer.split_special_tokens),
    )


def tokenizer_json(tokenizer: PreTrainedTokenizerBase) -> str:
    """`tokenizer.json` without whatever padding and truncation the last call left in the tokenizer."""
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    return str(backend.to_str(pretty=True))
