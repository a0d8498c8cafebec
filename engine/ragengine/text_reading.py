"""Long texts read piece by piece: the tokens of the whole text, in little memory.

A piece ends where no token can span, so the tokens of the pieces, one after the other, are those of the text.
"""

import re
import string
from dataclasses import dataclass

from tokenizers import Tokenizer
from tokenizers.models import BPE, WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel

_FIRST_PIECE = 8
"""Characters of the first piece per token that is wanted: English text has 4 to 5."""
_LONGEST_PIECE = 256
"""The same of the longest piece: BART's longest token has 128 characters."""

_SPACES = " \t\n\r"
_IDEOGRAPHS = "\u4e00-\u9fff"  # each a word of its own for BERT, and a letter for BART
_FULL_STOPS = "\u3001\u3002\uff0c"


@dataclass(frozen=True)
class Cuts:
    """Where the texts of one tokenizer may be cut.

    tokenizer      it
    added          its added tokens, found in a text before its words are
    last           matches a text up to the last place where a piece may end
    longest_word   characters beyond which a word is the unknown token, however it goes on; None where a word
                   of any length is made of tokens (byte-level BPE)
    """

    tokenizer: Tokenizer
    added: frozenset[str]
    last: re.Pattern[str]
    longest_word: int | None

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Cuts | None":
        """The cuts of a WordPiece tokenizer like BERT's or a byte-level BPE like BART's; None for others."""
        split = tokenizer.encode_special_tokens
        added = [
            token for token in tokenizer.get_added_tokens_decoder().values() if not (token.special and split)
        ]
        contents = frozenset(token.content for token in added)
        if any(token.single_word or (token.normalized and tokenizer.normalizer) for token in added):
            return None  # what these match depends on characters around them
        if max(map(len, contents), default=0) > _LONGEST_PIECE:
            return None
        # None of them may span a cut, nor take the spaces behind it.
        within = {character for content in contents for character in content[1:]}
        within.update(_SPACES if any(token.rstrip for token in added) else "")

        def class_of(characters: str, ranges: str = "") -> str:
            return f"[{re.escape(''.join(c for c in characters if c not in within))}{ranges}]"

        model, words = tokenizer.model, tokenizer.pre_tokenizer
        if isinstance(model, WordPiece) and isinstance(words, BertPreTokenizer):
            rules = tokenizer.normalizer
            if rules is not None and not isinstance(rules, BertNormalizer):
                return None
            ideographs = _IDEOGRAPHS if rules is not None and rules.handle_chinese_chars else ""
            before = class_of(_SPACES + string.punctuation, ideographs)
            if not all(re.match(before, content) for content in contents):
                return None  # a word without end would hide where it begins
            return cls(
                tokenizer, contents, re.compile(f"(?s:.+)(?={before})"), model.max_input_chars_per_word
            )
        if isinstance(model, BPE) and isinstance(words, ByteLevel) and words.use_regex:
            if tokenizer.normalizer is not None:
                return None
            # A word begins with its space.  With add_prefix_space, a piece that begins otherwise gets one.
            others = "" if words.add_prefix_space else _SPACES[1:] + string.punctuation + _FULL_STOPS
            before = class_of(" " + others)
            return cls(tokenizer, contents, re.compile(f"(?s:.*[0-9A-Za-z{_IDEOGRAPHS}])(?={before})"), None)
        return None

    def normalized(self, text: str) -> str:
        """``text`` as words are looked for in it."""
        rules = self.tokenizer.normalizer
        return text if rules is None else str(rules.normalize_str(text))


class TextReading:
    """One text on its way to token ids.

    ids     its first tokens, or its last ones, at most as many as are wanted
    count   how many tokens were read
    ended   whether that is all
    """

    __slots__ = ("_held", "_last", "_longest", "_place", "_size", "_text", "_wanted", "count", "ended", "ids")

    def __init__(self, text: str, wanted: int, *, last: bool = False) -> None:
        """Begin to read ``text``; ``last`` keeps its last tokens instead of its first."""
        self.ids: list[int] = []
        self._last = last
        self.count = 0
        self.ended = False
        self._wanted = wanted
        self._text = text
        self._held = ""  # the beginning of a word that has not ended yet, normalised
        self._place = 0  # where the next piece begins
        self._size = _FIRST_PIECE * wanted
        self._longest = _LONGEST_PIECE * wanted

    def next_piece(self, cuts: Cuts | None) -> str:
        """The text that is to be tokenized next."""
        begin, held, self._held = self._place, self._held, ""
        while cuts is not None and begin + self._size < len(self._text):
            if found := cuts.last.match(self._text, begin, begin + self._size):
                self._place = found.end()
                self._size = min(2 * self._size, self._longest)
                return held + self._text[begin : self._place]
            if self._size < self._longest:
                self._size = min(2 * self._size, self._longest)
            elif self._last and cuts.longest_word is None:
                return self._end_of_word(cuts, begin)
            else:
                self._place = begin + self._size
                return self._within_word(cuts, held + self._text[begin : self._place])
        self.ended = True
        return held + self._text[begin:]

    def kept(self, count: int) -> list[int]:
        """At most ``count`` of its tokens: the first, or the last."""
        return self.ids[max(0, len(self.ids) - count) :] if self._last else self.ids[:count]

    def add(self, ids: list[int]) -> None:
        """Take the tokens of the piece."""
        self.count += len(ids)
        if self._last:
            self.ids = [*self.ids, *ids][-self._wanted :]
        else:
            self.ids += ids[: self._wanted - len(self.ids)]

    def _end_of_word(self, cuts: Cuts, begin: int) -> str:
        """The end of a BPE word that goes on beyond the longest piece, where the last tokens are wanted.

        It has twice as many tokens as are wanted, and those at its beginning, which the cut may change, are
        not among them.
        """
        self._place = len(self._text)
        for start in range(begin + self._size, len(self._text), self._longest):
            if found := cuts.last.match(self._text, start, start + self._longest):
                self._place = found.end()
                break
        self.ended = self._place == len(self._text)
        return self._text[max(begin, self._place - self._longest) : self._place]

    def _within_word(self, cuts: Cuts, piece: str) -> str:
        """What of a piece that has no place to end can be tokenized now.

        BPE: all of it.  It has more tokens than are wanted, and those at its end, which the cut may change,
        are not among them.  WordPiece: what is before its last word.  Of that word, which goes on, only as
        many characters are kept as make it unknown.
        """
        if cuts.longest_word is None:
            return piece
        encoding = cuts.tokenizer.encode(piece, add_special_tokens=False)
        if not encoding.ids:
            return ""
        first = encoding.word_ids.index(encoding.word_ids[-1])
        begin, end = encoding.offsets[first][0], encoding.offsets[-1][1]
        word = piece[begin:end]
        if cuts.normalized(piece[end:]) or word in cuts.added:  # spaces behind it, or no word: it has ended
            return piece
        self._held = cuts.normalized(word)[: cuts.longest_word + 1]
        return piece[:begin]
