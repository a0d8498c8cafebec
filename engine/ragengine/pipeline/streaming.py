"""Answers token by token, with text that is never half a character."""

import re
from collections.abc import Generator as PythonGenerator
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from ragengine.arrays import FloatArray
from ragengine.generation.search.outputs import StreamedToken
from ragengine.options import GenerationOptions
from ragengine.results import Document
from ragengine.runtime.lifecycle import awaited_at_exit
from ragengine.tokenization import Tokenizer

# A clean-up rule of `Tokenizer.decode` is a space and at most three other characters, and removes spaces
# only: up to the end of the last word of three characters or more, nothing that follows changes the text.
_LONG_WORD = re.compile(r"[^ ]{3,}")
_UNKNOWN = "\ufffd"


@dataclass(frozen=True, eq=False)
class AnswerToken:
    """One token of an answer in the making.

    text       what the answer's text grows by, all of it together being `Answer.text`; empty while a
               character is not complete, or clean-up of spaces may still change it
    log_prob   log p(y_t | x, y_<t), in nats
    posterior  p(z | x, y_<=t), float32 [D], over :attr:`AnswerStream.documents`
    """

    token_id: int
    text: str
    log_prob: float
    posterior: FloatArray


class AnswerStream(Iterator[AnswerToken]):
    """Iterates over the tokens of one answer; they are computed as they are asked for.

    ``documents`` are known before the first token, with score and prior; ``pruned`` are those that
    ``doc_pruning`` left out.  Stop whenever you like: :meth:`close`, leaving a ``with`` block, or dropping
    the stream frees its memory, and the engine is not affected.
    """

    def __init__(
        self,
        question: str,
        documents: list[Document],
        pruned: list[Document],
        tokens: Iterator[StreamedToken],
        tokenizer: Tokenizer,
        options: GenerationOptions,
    ) -> None:
        self.question = question
        self.documents = tuple(documents)
        self.pruned = tuple(pruned)
        self.options = options
        self._pieces = TextPieces(tokenizer)
        # Not a method's: a stream in a cycle with its own generator would wait for the garbage collector.
        self._tokens = _paired(tokens, self._pieces, options)

    @property
    def token_ids(self) -> list[int]:
        """The tokens so far."""
        return list(self._pieces.token_ids)

    @property
    def text(self) -> str:
        """The text so far, as it would be if the answer ended here."""
        return self._pieces.text

    def close(self) -> None:
        """Compute no more tokens; the iteration ends."""
        self._tokens.close()

    @awaited_at_exit
    def __next__(self) -> AnswerToken:
        return next(self._tokens)

    def __enter__(self) -> "AnswerStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _paired(
    tokens: Iterator[StreamedToken], pieces: "TextPieces", options: GenerationOptions
) -> PythonGenerator[AnswerToken, None, None]:
    """The tokens with their texts."""
    try:
        for token in tokens:
            full = len(pieces.token_ids) + 1 == options.longest - 1
            last = full or token.token_id in options.eos_token_ids
            text = pieces.push(token.token_id, last=last)
            yield AnswerToken(token.token_id, text, token.log_prob, token.posterior)
    finally:
        close = getattr(tokens, "close", None)
        if close is not None:
            close()


class TextPieces:
    """Decodes a growing list of tokens; the pieces together are `Tokenizer.decode` of all of them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.token_ids: list[int] = []
        self._tokenizer = tokenizer
        self._given = 0

    @property
    def text(self) -> str:
        """All of the text, an incomplete character at its end included."""
        return self._tokenizer.decode(self.token_ids)

    def push(self, token_id: int, *, last: bool) -> str:
        """The text that is certain with this token and was not before; with the ``last``, all the rest."""
        self.token_ids.append(token_id)
        text = self.text
        end = len(text) if last else self._settled(text)
        piece = text[self._given : end]
        self._given = max(self._given, end)
        return piece

    def _settled(self, text: str) -> int:
        """How many characters of ``text`` no further token can change.

        A byte-level token may end inside a character, which decodes to U+FFFD until the rest is there.
        """
        text = text.rstrip(_UNKNOWN)
        if not self._tokenizer.spec.clean_up_tokenization_spaces:
            return len(text)
        # Clean-up makes "'" of " ' " at the end, and a mark that follows takes the second space away again.
        return max((word.end() for word in _LONG_WORD.finditer(text.rstrip("'"))), default=0)
