"""Text to token ids and back, as transformers does it, from `tokenizer.json` alone.

`RagTokenizer` and `RagRetriever.postprocess_docs` of transformers are the reference, byte for byte.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tokenizers

from ragengine.arrays import IntArray
from ragengine.bundle.manifest import TokenizerSpec
from ragengine.errors import BundleError, InputError
from ragengine.runtime.cancellation import NEVER, Stop
from ragengine.text_reading import Cuts, TextReading

_CHARACTERS_AT_ONCE = 1 << 18
"""What is tokenized together: a character takes up to a hundred bytes until only the ids are kept."""

# transformers.PreTrainedTokenizerBase.clean_up_tokenization, in its order.
_CLEAN_UP = [(" " + mark, mark) for mark in (".", "?", "!", ",")]
_CLEAN_UP += [(" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")]


class Tokenizer:
    """A Hugging Face fast tokenizer without transformers.

    Immutable after loading and therefore safe to share between threads.
    """

    def __init__(self, path: Path, spec: TokenizerSpec, *, max_length: int | None = None) -> None:
        """Load ``tokenizer.json``; inputs are cut to ``max_length`` tokens."""
        self.path = path
        self.spec = spec
        self.max_length = max_length or spec.max_length
        with _errors_named(f"{path} is not a tokenizer that this version of tokenizers reads"):
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
            self._templates = {pair: self._template(pair=pair) for pair in (False, True)}
            special = self._tokenizer.num_special_tokens_to_add(True)
            self._tokenizer.encode_special_tokens = spec.split_special_tokens  # the template is made of one
            self._cuts = Cuts.of(self._tokenizer)
        if self.max_length <= special:
            raise BundleError(
                f"max_length of {path} is {self.max_length}, its special tokens alone are {special}; "
                "export the bundle again."
            )

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added tokens included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, texts: Sequence[str] | Sequence[tuple[str, str]], stop: Stop = NEVER) -> list["Encoded"]:
        """Encode texts, or pairs of texts, with special tokens and truncation.

        A text is read only as far as its tokens are kept.  ``stop`` is asked between pieces of texts.
        """
        rows = [
            [
                TextReading(part, self.max_length, last=self._keeps_end)
                for part in ((text,) if isinstance(text, str) else text)
            ]
            for text in texts
        ]
        reading = rows
        while reading := [row for row in reading if any(self._goes_on(row))]:
            self._read((text for row in reading for text in self._goes_on(row)), stop)
        return [self._joined(row) for row in rows]

    def encode_bare(self, texts: Sequence[str], longest: int, stop: Stop = NEVER) -> list[list[int]]:
        """Token ids of texts alone, without special tokens; of a longer text the first ``longest``."""
        rows = [TextReading(text, longest) for text in texts]
        reading = rows
        while reading := [text for text in reading if not text.ended and text.count < longest]:
            self._read(reading, stop)
        return [text.ids for text in rows]

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

    @property
    def _keeps_end(self) -> bool:
        return self.spec.truncation_side == "left"

    def _template(self, *, pair: bool) -> list[tuple[int | None, int]]:
        """How an input is put together: the number of a text, or None and a special token."""
        added = self._tokenizer.get_added_tokens_decoder().values()
        text = next((token.content for token in added), "a")  # one that every tokenizer knows
        encoding = self._tokenizer.encode(text, text if pair else None)
        parts: list[tuple[int | None, int]] = []
        for number, token in zip(encoding.sequence_ids, encoding.ids, strict=True):
            if number is None or (number, token) not in parts:
                parts.append((number, token))
        return parts

    def _room(self, row: list[TextReading]) -> int:
        """How many tokens of an input's texts are kept, beside the special ones."""
        return self.max_length - sum(number is None for number, _ in self._templates[len(row) == 2])

    def _goes_on(self, row: list[TextReading]) -> Iterator[TextReading]:
        """Those of an input's one or two texts of which more tokens have to be read.

        One token too many is enough where the beginning is kept, except of two texts that are both too long:
        where the room is odd, the one with more tokens keeps one more.
        """
        room = self._room(row)
        for text, other in zip(row, reversed(row), strict=True):
            which_is_longer = len(row) == 2 and room % 2 == 1 and text.count <= other.count
            if not text.ended and (self._keeps_end or text.count <= room or which_is_longer):
                yield text

    def _joined(self, row: list[TextReading]) -> "Encoded":
        """An input's texts with the special tokens; of two texts, the longer is cut first."""
        room = self._room(row)
        counts = [text.count for text in row]
        kept = [room]
        if len(row) == 2:
            shorter = min(*counts, room // 2)
            kept = [shorter, room - shorter] if counts[0] <= counts[1] else [room - shorter, shorter]
        ids: list[int] = []
        for number, token in self._templates[len(row) == 2]:
            ids += [token] if number is None else row[number].kept(kept[number])
        return Encoded(ids, sum(counts) > room)

    def _read(self, texts: Iterable[TextReading], stop: Stop) -> None:
        """Tokenize the next piece of each text, as many pieces together as memory should hold."""
        batch: list[tuple[TextReading, str]] = []
        characters = 0
        for text in texts:
            with self._text_errors():
                piece = text.next_piece(self._cuts)
            batch.append((text, piece))
            characters += len(piece)
            if characters >= _CHARACTERS_AT_ONCE:
                self._read_pieces(batch, stop)
                batch, characters = [], 0
        self._read_pieces(batch, stop)

    def _read_pieces(self, batch: list[tuple[TextReading, str]], stop: Stop) -> None:
        stop.check("while texts were tokenized")
        pieces = [piece for _, piece in batch]
        with self._text_errors():
            encodings = self._tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
        for (text, _), encoding in zip(batch, encodings, strict=True):
            text.add(encoding.ids)

    @contextlib.contextmanager
    def _text_errors(self) -> Iterator[None]:
        try:
            with _errors_named(f"{self.path} cannot encode a text"):
                yield
        except (TypeError, UnicodeEncodeError) as reason:
            raise InputError(
                f"A text cannot be encoded as UTF-8 ({reason}); remove lone surrogates."
            ) from reason


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
    """Token ids of one text, and whether truncation cut something off.

    ``own_ids`` are those of the text alone, where ``ids`` begin with a prompt.
    """

    __slots__ = ("ids", "own_ids", "truncated")

    def __init__(self, ids: list[int], truncated: bool, own_ids: list[int] | None = None) -> None:
        self.ids = ids
        self.truncated = truncated
        self.own_ids = ids if own_ids is None else own_ids
