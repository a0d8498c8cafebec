"""`ReadingOptions`: how passages are read, in the words of ``build_index`` and ``ragengine index build``."""

from dataclasses import dataclass
from typing import Final

from ragengine.errors import InputError
from ragengine.messages import short_repr
from ragengine.validation import check_whole_number

WORDS_PER_PASSAGE: Final = 100
"""Words of a passage, as the paper splits Wikipedia."""
MOST_WORDS: Final = 100_000


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """How passages are read.

    id_field        the column or JSON field of the id; None for ``id``, else BEIR's ``_id``
    title_field     of the title; None for ``title``
    text_field      of the text; None for ``text``
    passage_words   words that a text is split at; None for 100, and records are not split then
    overlap         words that a passage repeats of the one before it
    strict          whether it is an error to leave a file of a folder out

    Raises:
        InputError: a value cannot be used.
    """

    id_field: str | None = None
    title_field: str | None = None
    text_field: str | None = None
    passage_words: int | None = None
    overlap: int = 0
    strict: bool = False

    def __post_init__(self) -> None:
        for name in ("id_field", "title_field", "text_field"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise InputError(f"{name} is {short_repr(value)}; it must be the name of a column.")
        words, overlap = self.passage_words, self.overlap
        if words is not None:
            check_whole_number("passage_words", words, most=MOST_WORDS)
        if type(overlap) is not int or not 0 <= overlap < self.words:
            raise InputError(
                f"overlap is {short_repr(overlap)}; it must be a whole number from 0 to {self.words - 1}, "
                "fewer words than a passage has."
            )

    @property
    def words(self) -> int:
        """Words of a passage of a text that is split."""
        return WORDS_PER_PASSAGE if self.passage_words is None else self.passage_words

    @property
    def names_columns(self) -> bool:
        """Whether a column was named, so that a table must have a header."""
        return bool(self.id_field or self.title_field or self.text_field)
