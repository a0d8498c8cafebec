"""Which tokens may follow, and at what price: transformers' logits processors.

Candidates are chosen inside the graph, before these rules are known there.  The search stays exact because
it fetches as many candidates more as the rules can take away, and asks for the probabilities of tokens that
the rules bring in by name (the graph's ``probe_ids``).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ragengine.arrays import IntArray
from ragengine.errors import OptionsError
from ragengine.options import GenerationOptions

TokenSets: TypeAlias = list[list[set[int]]]
"""For each question and beam a set of token ids, [Q][B]."""
AllowedTokens: TypeAlias = Callable[[int, IntArray], Iterable[int]]
"""transformers' ``prefix_allowed_tokens_fn``: (question, int64 [T] from the start token on) -> token ids."""


@dataclass(frozen=True)
class StepRules:
    """The rules of one step.

    forced     the token that every beam must take next; it adds 0 to the score
    banned     tokens that may not follow
    penalised  tokens whose log-probability is changed by the repetition penalty
    allowed    the only tokens that may follow, where that is restricted
    """

    forced: int | None
    banned: TokenSets
    penalised: TokenSets
    allowed: TokenSets | None

    @property
    def probed(self) -> TokenSets:
        """Tokens whose probabilities are needed whatever their rank."""
        if self.forced is not None:
            return alike({self.forced}, len(self.banned), len(self.banned[0]))
        return self.penalised if self.allowed is None else self.allowed

    @property
    def named(self) -> bool:
        """Whether only tokens that are known by name may follow, whatever their rank."""
        return self.forced is not None or self.allowed is not None

    @property
    def margin(self) -> int:
        """How many of the best candidates of a question the bans and prices can take away at most."""
        if (tokens := self.changed_everywhere) is not None:
            return len(tokens) * len(self.banned[0])
        pairs = zip(self.banned, self.penalised, strict=True)
        return max(sum(len(b | p) for b, p in zip(*beams, strict=True)) for beams in pairs)

    @property
    def changed_everywhere(self) -> set[int] | None:
        """What is banned or penalised after every beam alike; None where it may differ."""
        banned, penalised = shared(self.banned), shared(self.penalised)
        return None if banned is None or penalised is None else banned | penalised


@dataclass(frozen=True)
class Rules:
    """The rules of a search.

    ``context_input_ids`` int64 [Q, D, S] are read for ``encoder_no_repeat_ngram_size`` alone; -1 is padding.
    """

    options: GenerationOptions
    context_input_ids: IntArray | None = None
    allowed_tokens: AllowedTokens | None = None
    _context_ngrams: list[dict[tuple[int, ...], set[int]]] = field(init=False)

    def __post_init__(self) -> None:
        size, ids = self.options.encoder_no_repeat_ngram_size, self.context_input_ids
        ngrams = [] if not size or ids is None else [_ngrams(documents.tolist(), size) for documents in ids]
        object.__setattr__(self, "_context_ngrams", ngrams)

    def by_document(self, options: GenerationOptions, n_docs: int) -> "Rules":
        """The rules of searches over each of ``n_docs`` documents alone: Q·D questions of one document."""
        ids, allowed = self.context_input_ids, self.allowed_tokens
        return Rules(
            options,
            None if ids is None else ids.reshape(-1, 1, ids.shape[2]),
            None if allowed is None else lambda row, tokens: allowed(row // n_docs, tokens),
        )

    def at(self, sequences: IntArray, numbers: Sequence[int] | None = None) -> StepRules:
        """The rules after ``sequences``, int64 [Q, B, T] with the decoder's start token.

        ``numbers`` are those of the questions among all that the search began with; None: all, in order.
        """
        numbers = range(len(sequences)) if numbers is None else numbers
        forced = self._forced(sequences.shape[2])
        everywhere = self._banned_everywhere(sequences.shape[2])

        def each(rule: Callable[[int, list[int]], set[int]]) -> TokenSets:
            beams = zip(numbers, sequences.tolist(), strict=True)
            return [[rule(question, beam) for beam in own] for question, own in beams]

        def everyone(tokens: set[int]) -> TokenSets:
            return alike(tokens, *sequences.shape[:2])

        return StepRules(
            forced=forced,
            banned=each(lambda question, beam: everywhere | self._banned_after(question, beam))
            if self._bans_by_beam
            else everyone(everywhere),
            penalised=each(lambda _, beam: set(beam))
            if self.options.repetition_penalty != 1.0
            else everyone(set()),
            allowed=None if self.allowed_tokens is None else self._allowed(sequences, numbers),
        )

    @property
    def _bans_by_beam(self) -> bool:
        """Whether what is banned depends on the tokens before it."""
        options = self.options
        return bool(options.no_repeat_ngram_size or options.bad_words_ids or self._context_ngrams)

    def _forced(self, length: int) -> int | None:
        """`ForcedBOSTokenLogitsProcessor` and `ForcedEOSTokenLogitsProcessor`."""
        if length == self.options.longest - 1 and self.options.forced_eos_token_id is not None:
            return self.options.forced_eos_token_id
        return self.options.forced_bos_token_id if length == 1 else None

    def _banned_everywhere(self, length: int) -> set[int]:
        """`MinLength-`, `MinNewTokensLength-`, `SuppressTokens-`, `SuppressTokensAtBeginLogitsProcessor`."""
        options = self.options
        banned = set(options.suppress_tokens or ())
        if length < options.shortest:
            banned |= set(options.eos_token_ids)
        begin = 1 if options.forced_bos_token_id is None else 2
        if length == begin:
            banned |= set(options.begin_suppress_tokens or ())
        return banned

    def _banned_after(self, question: int, tokens: list[int]) -> set[int]:
        """`NoRepeatNGram-`, `EncoderNoRepeatNGram-` and `NoBadWordsLogitsProcessor`."""
        banned: set[int] = set()
        size = self.options.no_repeat_ngram_size
        if size and len(tokens) >= size:
            banned |= _ngrams([tokens], size).get(_tail(tokens, size - 1), set())
        if self._context_ngrams:
            tail = _tail(tokens, self.options.encoder_no_repeat_ngram_size - 1)
            banned |= self._context_ngrams[question].get(tail, set())
        for word in self.options.bad_words_ids or ():
            if len(word) > 1 and tuple(word[:-1]) == _tail(tokens, len(word) - 1):
                banned.add(word[-1])
            elif len(word) == 1 and word[0] not in self.options.eos_token_ids:
                banned.add(word[0])
        return banned

    def _allowed(self, sequences: IntArray, numbers: Sequence[int]) -> TokenSets:
        """`PrefixConstrainedLogitsProcessor`."""
        beams = zip(numbers, sequences, strict=True)
        return [[self._allowed_after(question, beam) for beam in own] for question, own in beams]

    def _allowed_after(self, question: int, tokens: IntArray) -> set[int]:
        assert self.allowed_tokens is not None
        # of a copy, which is the callback's own to change
        allowed = {int(token) for token in self.allowed_tokens(question, tokens.copy())}
        if not allowed:
            raise OptionsError(
                f"prefix_allowed_tokens_fn allows no token after {tokens.tolist()} of question {question}; "
                "it must always allow one, the end token for instance."
            )
        return allowed


def alike(tokens: set[int], questions: int, beams: int) -> TokenSets:
    """One set for all beams of all questions."""
    return [[tokens] * beams] * questions


def shared(sets: TokenSets) -> set[int] | None:
    """The set of all beams, where they have the same: with most rules they do, and need no loop then."""
    beams = sets[0]
    same = sets.count(beams) == len(sets) and beams.count(beams[0]) == len(beams)
    return beams[0] if same else None


def _ngrams(sequences: list[list[int]], size: int) -> dict[tuple[int, ...], set[int]]:
    """All n-grams of ``sequences``: which tokens follow each first n-1."""
    found: dict[tuple[int, ...], set[int]] = {}
    for tokens in sequences:
        for start in range(len(tokens) - size + 1):
            found.setdefault(tuple(tokens[start : start + size - 1]), set()).add(tokens[start + size - 1])
    return found


def _tail(tokens: list[int], count: int) -> tuple[int, ...]:
    return tuple(tokens[len(tokens) - count :]) if count else ()
