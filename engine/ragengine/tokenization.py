"""Text to token ids and back, as transformers does it, from `tokenizer.json` alone.

`RagTokenizer` and `RagRetriever.postprocess_docs` of transformers are the reference, byte for byte.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from ragengine.arrays import IntArray
from ragengine.bundle.manifest import TokenizerSpec
from ragengine.errors import BundleError, InputError

# transformers.PreTrainedTokenizerBase.clean_up_tokenization, in its order.
_CLEAN_UP = [(" " + mark, mark) for mark in (".", "?", "!", ",")]
_CLEAN_UP += [(" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")]


class Tokenizer:
    """A Hugging Face fast tokenizer without transformers.

    Immutable after loading and therefore safe to share between threads.
    """

    def __init__(self, path: Path, spec: TokenizerSpec, *, max_length: int | None = None) -> None:
        """Load ``tokenizer.json``; inputs are truncated on the right to ``max_length`` tokens."""
        self.path = path
        self.spec = spec
        self.max_length = max_length or spec.max_length
        with _errors_named(f"{path} is not a tokenizer that this version of tokenizers reads"):
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(self.max_length)
            special = self._tokenizer.num_special_tokens_to_add(True)
        if self.max_length <= special:  # tokenizers would then not truncate at all
            raise BundleError(
                f"max_length of {path} is {self.max_length}, its special tokens alone are {special}; "
                "export the bundle again."
            )

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added tokens included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list["Encoded"]:
        """Encode texts, or pairs of texts, with special tokens and truncation."""
        encodings = self._encoded(texts, special_tokens=True)
        return [Encoded(e.ids, bool(e.overflowing)) for e in encodings]

    def encode_bare(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts alone: no special tokens are put around them, and nothing is cut off."""
        encodings = self._encoded(texts, special_tokens=False)
        # What truncation cut off comes after, in pieces: no tokenizer without truncation is needed beside.
        return [[*e.ids, *(token for piece in e.overflowing for token in piece.ids)] for e in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """Decode token ids as `PreTrainedTokenizer.decode(ids, skip_special_tokens=True)` does."""
        with _errors_named(f"{self.path} cannot decode tokens"):
            text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        if self.spec.clean_up_tokenization_spaces:
            for old, new in _CLEAN_UP:
                text = text.replace(old, new)
        return text

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """The text that each token contributes to an answer; a byte-level token may be half a character."""
        with _errors_named(f"{self.path} cannot decode tokens"):
            return [str(self._tokenizer.decode([token], skip_special_tokens=False)) for token in ids]

    def pad(self, sequences: Sequence[Sequence[int]]) -> tuple[IntArray, IntArray]:
        """Pad on the right to the longest: token ids and attention mask, both int64 [N, S]."""
        length = max(map(len, sequences))
        ids = np.full((len(sequences), length), self.spec.pad_token_id, np.int64)
        mask = np.zeros((len(sequences), length), np.int64)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        return ids, mask

    def _encoded(self, texts: Sequence[Any], *, special_tokens: bool) -> list[tokenizers.Encoding]:
        try:
            with _errors_named(f"{self.path} cannot encode a text"):
                encodings: list[tokenizers.Encoding] = self._tokenizer.encode_batch(
                    list(texts), add_special_tokens=special_tokens
                )
        except (TypeError, UnicodeEncodeError) as reason:
            raise InputError(
                f"A text cannot be encoded as UTF-8 ({reason}); remove lone surrogates."
            ) from reason
        return encodings


@contextlib.contextmanager
def _errors_named(what: str) -> Iterator[None]:
    """Raise :class:`BundleError` for what is wrong with a `tokenizer.json`, whenever it shows.

    tokenizers raises a bare Exception then, or panics; its PanicException is not even an Exception.
    """
    try:
        yield
    except (TypeError, UnicodeEncodeError, MemoryError):  # the caller's arguments
        raise
    except BaseException as reason:
        if not isinstance(reason, Exception) and type(reason).__name__ != "PanicException":
            raise  # KeyboardInterrupt and its like
        raise BundleError(f"{what}: {reason}; export the bundle again.") from reason


class Encoded:
    """Token ids of one text, and whether truncation cut something off."""

    __slots__ = ("ids", "truncated")

    def __init__(self, ids: list[int], truncated: bool) -> None:
        self.ids = ids
        self.truncated = truncated
