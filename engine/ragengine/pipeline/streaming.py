"""Answers token by token, with text that is never half a character."""

import re
from collections.abc import Callable
from collections.abc import Generator as PythonGenerator
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from ragengine.arrays import FloatArray
from ragengine.errors import InputError
from ragengine.generation.search.outputs import StreamedToken
from ragengine.generation.token_stream import TokenStream
from ragengine.options import GenerationOptions
from ragengine.results import Answer, Document, Hypothesis
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


class AnswerStream(TokenStream[AnswerToken]):
    """Iterates over the tokens of one answer; they are computed as they are asked for.

    ``documents`` are known before the first token, with score and prior; ``pruned`` are those that
    ``doc_pruning`` left out; :meth:`answer` is there after the last token.  Stop whenever you like:
    :meth:`close`, leaving a ``with`` block, or dropping the stream frees its memory, and the engine is not
    affected.  Threads may share it: each token goes to one of them, and any of them may close it.
    """

    def __init__(
        self,
        question: str,
        documents: list[Document],
        pruned: list[Document],
        tokens: PythonGenerator[StreamedToken, None, None],
        tokenizer: Tokenizer,
        options: GenerationOptions,
        finish: Callable[[Hypothesis], Answer],
    ) -> None:
        self.question = question
        self.documents = tuple(documents)
        self.pruned = tuple(pruned)
        self.options = options
        self._pieces = TextPieces(tokenizer)
        self._finish = finish
        self._found: list[StreamedToken] = []
        # Not a method's: a stream in a cycle with its own generator would wait for the garbage collector.
        super().__init__(_paired(tokens, self._found, self._pieces, options))

    @property
    def token_ids(self) -> list[int]:
        """The tokens so far."""
        return list(self._pieces.token_ids)

    @property
    def text(self) -> str:
        """The text so far, as it would be if the answer ended here."""
        return self._pieces.text

    def answer(self) -> Answer:
        """What :meth:`RagEngine.generate` returns for the same call, once the last token is there.

        Raises:
            InputError: the stream has not come to its end.
        """
        found = self._found
        if not found or not _is_last(found, self.options):
            raise InputError(
                f"The answer is not finished after {len(found)} tokens; iterate over the stream to its end."
            )
        log_probs = np.array([token.log_prob for token in found], np.float32)
        return self._finish(
            Hypothesis(
                token_ids=np.array([token.token_id for token in found], np.int64),
                score=found[-1].score,
                log_prob=float(log_probs.sum(dtype=np.float64)),
                token_log_probs=log_probs,
                token_posteriors=np.stack([token.posterior for token in found]),
            )
        )

    @awaited_at_exit
    def __next__(self) -> AnswerToken:
        return super().__next__()

    def __enter__(self) -> "AnswerStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _paired(
    tokens: PythonGenerator[StreamedToken, None, None],
    found: list[StreamedToken],
    pieces: "TextPieces",
    options: GenerationOptions,
) -> PythonGenerator[AnswerToken, None, None]:
    """The tokens with their texts; ``found`` collects them."""
    try:
        for token in tokens:
            found.append(token)
            text = pieces.push(token.token_id, last=_is_last(found, options))
            yield AnswerToken(token.token_id, text, token.log_prob, token.posterior)
    finally:
        tokens.close()


def _is_last(found: list[StreamedToken], options: GenerationOptions) -> bool:
    """Whether the last of the tokens found ends the answer."""
    return len(found) == options.longest - 1 or found[-1].token_id in options.eos_token_ids


class TextPieces:
    """Decodes a growing list of tokens; the pieces together are `Answer.text`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.token_ids: list[int] = []
        self._tokenizer = tokenizer
        self._given = 0

    @property
    def text(self) -> str:
        """All of the text, an incomplete character at its end included; without white space before it."""
        return self._tokenizer.decode(self.token_ids).lstrip()

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
