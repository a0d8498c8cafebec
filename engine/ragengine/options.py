"""Generation options: the names, defaults and meaning of `transformers.GenerationConfig`, plus RAG's."""

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict, Unpack

import numpy as np

from ragengine.errors import OptionsError
from ragengine.messages import short_repr


@dataclass(frozen=True)
class GenerationOptions:
    """How an answer is searched for.  Checks itself once, when made, and names every wrong field.

    Lengths count target tokens with the decoder's start token, as in transformers.  The defaults here are
    transformers', not a model's: ``engine.default_options.replace(num_beams=2)`` changes one of a model's.

    n_docs                  D, documents read per question (paper: k)
    marginalize             "token": every token sums over the documents (RAG-Token); "sequence": whole
                            outputs do (RAG-Sequence)
    search                  for RAG-Sequence: "thorough" and "fast" (paper, section 2.5), or "joint", one beam
                            search over its likelihood
    do_deduplication        thorough: score equal candidates once
    exclude_bos_score       thorough: leave a first BOS out of the score
    num_beams               B; 1 is greedy search, or sampling
    num_return_sequences    hypotheses returned per question
    max_length, min_length  of the answer in tokens; max_new_tokens and min_new_tokens do not count the start.
                            max_new_tokens replaces max_length; of the two minima RAG-Token keeps the larger,
                            RAG-Sequence min_new_tokens
    length_penalty          a hypothesis' score is its log-probability / length ** length_penalty
    early_stopping          True: stop at ``num_beams`` finished hypotheses; False: when the best running
                            beam is unlikely to improve on them; "never": when it cannot
    no_repeat_ngram_size    no n-gram of this size occurs twice; 0 allows all
    encoder_no_repeat_ngram_size  no n-gram of this size from the documents' prompts
    repetition_penalty      divides the odds of tokens that occurred: 1 leaves them
    bad_words_ids           token sequences that never occur
    suppress_tokens, begin_suppress_tokens  tokens that never occur, or not first
    forced_bos_token_id     the first token, whatever its probability
    forced_eos_token_id     the last token of an answer that reaches ``max_length``
    eos_token_id            token, or tokens, that end an answer
    decoder_start_token_id  what the decoder reads first
    do_sample               draw tokens instead of taking the best, from the distribution that temperature,
                            top_k (0: all), top_p, typical_p and epsilon_cutoff leave
    seed                    of the draws; None draws anew each time
    prompt_lookup_num_tokens  read up to so many tokens ahead that the documents suggest, where one question
                            is answered by greedy RAG-Token: the same tokens in fewer steps; None reads none
    max_matching_ngram_size of the last tokens that are looked up in the documents; None is 2
    """

    n_docs: int = 5
    marginalize: Literal["token", "sequence"] = "token"
    search: Literal["thorough", "fast", "joint"] = "thorough"
    do_deduplication: bool = True
    exclude_bos_score: bool = True
    num_beams: int = 1
    num_return_sequences: int = 1
    max_length: int = 20
    min_length: int = 0
    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0
    bad_words_ids: tuple[tuple[int, ...], ...] | None = None
    suppress_tokens: tuple[int, ...] | None = None
    begin_suppress_tokens: tuple[int, ...] | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    decoder_start_token_id: int = 2
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    seed: int | None = None
    prompt_lookup_num_tokens: int | None = None
    max_matching_ngram_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("eos_token_id", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids"):
            object.__setattr__(self, name, _frozen(getattr(self, name)))
        wrong = {
            field.name: _rule(field.name, getattr(self, field.name))
            for field in dataclasses.fields(self)
            if not _RULES[field.name][1](getattr(self, field.name))
        }
        faults = [
            f"{n} is {short_repr(getattr(self, n))}, it must be {rule}{_python_value(getattr(self, n))}"
            for n, rule in wrong.items()
        ]
        if not _COMBINED & set(wrong):
            faults += self._combination_faults()
        if faults:
            raise OptionsError(f"Wrong generation options: {'; '.join(faults)}.")

    def _combination_faults(self) -> list[str]:
        wanted, sampling = self.num_return_sequences, self.do_sample and self.num_beams == 1
        faults = []
        by_beams = self.marginalize == "token" or self.search == "joint"  # else D documents find more
        if wanted > self.num_beams and not sampling and by_beams:
            faults.append(
                f"num_return_sequences is {wanted}, it must be at most num_beams ({self.num_beams})"
            )
        replaced = self.marginalize == "sequence" and self.min_new_tokens is not None  # see `shortest`
        if self.min_length > self.longest and not replaced:
            faults.append(
                f"min_length is {self.min_length}, it must be at most the longest answer ({self.longest})"
            )
        if (self.min_new_tokens or 0) >= self.longest:
            faults.append(
                f"min_new_tokens is {self.min_new_tokens}, "
                f"it must be less than the longest answer ({self.longest})"
            )
        for name in ("forced_bos_token_id", "forced_eos_token_id"):
            if getattr(self, name) in (self.suppress_tokens or ()):
                faults.append(f"{name} is {getattr(self, name)}, it must not be in suppress_tokens")
        return faults

    @property
    def longest(self) -> int:
        """The length of the longest answer, with the start token."""
        return self.max_length if self.max_new_tokens is None else 1 + self.max_new_tokens

    @property
    def shortest(self) -> int:
        """The length of the shortest answer, with the start token.

        RAG-Token keeps both limits; in RAG-Sequence ``min_new_tokens``, where it is given, replaces
        ``min_length``, as in transformers.
        """
        if self.min_new_tokens is None:
            return self.min_length
        new = 1 + self.min_new_tokens
        return new if self.marginalize == "sequence" else max(self.min_length, new)

    @property
    def paths(self) -> int:
        """How many outputs a search follows at once: its beams, or its draws."""
        return self.num_return_sequences if self.do_sample and self.num_beams == 1 else self.num_beams

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """``eos_token_id`` as a tuple; empty when nothing but the length ends an answer."""
        if self.eos_token_id is None:
            return ()
        return self.eos_token_id if isinstance(self.eos_token_id, tuple) else (self.eos_token_id,)

    def token_ids(self) -> dict[str, tuple[int, ...]]:
        """All token ids in the options, by option."""
        single = ("forced_bos_token_id", "forced_eos_token_id", "decoder_start_token_id")
        found: dict[str, tuple[int, ...]] = {}
        found |= {name: (getattr(self, name),) for name in single if getattr(self, name) is not None}
        found["eos_token_id"] = self.eos_token_ids
        for name in ("suppress_tokens", "begin_suppress_tokens"):
            found[name] = getattr(self, name) or ()
        found["bad_words_ids"] = tuple(token for word in self.bad_words_ids or () for token in word)
        return found

    def replace(self, **changes: Unpack["GenerationOverrides"]) -> "GenerationOptions":
        """A copy with some options changed; an unknown name is an error that suggests the nearest."""
        check_names(changes)
        values: dict[str, Any] = {**changes}  # sequences become tuples
        return dataclasses.replace(self, **values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "GenerationOptions":
        """Options by name, for instance a bundle's defaults."""
        if not isinstance(values, Mapping):
            raise OptionsError(f"options is {type(values).__name__}; it must be a dict of options by name.")
        check_names(values)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All options by name, as JSON values."""
        return dataclasses.asdict(self)


class ScoringOverrides(TypedDict, total=False):
    """:class:`GenerationOverrides` but for ``exclude_bos_score``, an argument of a score's own."""

    n_docs: int
    marginalize: Literal["token", "sequence"]
    search: Literal["thorough", "fast", "joint"]
    do_deduplication: bool
    num_beams: int
    num_return_sequences: int
    max_length: int
    min_length: int
    max_new_tokens: int | None
    min_new_tokens: int | None
    length_penalty: float
    early_stopping: bool | Literal["never"]
    no_repeat_ngram_size: int
    encoder_no_repeat_ngram_size: int
    repetition_penalty: float
    bad_words_ids: Sequence[Sequence[int]] | None
    suppress_tokens: Sequence[int] | None
    begin_suppress_tokens: Sequence[int] | None
    forced_bos_token_id: int | None
    forced_eos_token_id: int | None
    eos_token_id: int | Sequence[int] | None
    decoder_start_token_id: int
    do_sample: bool
    temperature: float
    top_k: int
    top_p: float
    typical_p: float
    epsilon_cutoff: float
    seed: int | None
    prompt_lookup_num_tokens: int | None
    max_matching_ngram_size: int | None


class GenerationOverrides(ScoringOverrides, total=False):
    """Single options by name, as keyword arguments of a call, for type checkers.

    They are the fields of :class:`GenerationOptions`; where those are tuples, any sequence will do.
    """

    exclude_bos_score: bool


_DIGITS: Final = 40
"""Of the longest whole number, as in a manifest: a float is not less, and a message can hold it."""

OPTION_NAMES = tuple(field.name for field in dataclasses.fields(GenerationOptions))


def checked_kind(options: Any) -> GenerationOptions:
    """Refuse what is not :class:`GenerationOptions`."""
    if not isinstance(options, GenerationOptions):
        raise OptionsError(
            f"options is {type(options).__name__}; it must be GenerationOptions, or single options by name."
        )
    return options


def check_names(values: Mapping[str, Any]) -> None:
    """Refuse names that are not options; the message suggests the nearest option for each."""
    faults = []
    for name in values:
        if name not in OPTION_NAMES:
            near = difflib.get_close_matches(str(name), OPTION_NAMES, 1)
            faults.append(
                f"{short_repr(name)} is not a generation option"
                + (f"; did you mean {near[0]!r}?" if near else "")
            )
    if faults:
        told = "; ".join(faults)
        raise OptionsError(f"Wrong generation options: {told}" + ("" if told.endswith("?") else "."))


def _frozen(value: Any, depth: int = 2) -> Any:
    """Lists, and lists in them, as tuples, so that options cannot be changed by accident."""
    if not depth or not isinstance(value, list | tuple):
        return value
    return tuple(_frozen(inner, depth - 1) for inner in value)


def _rule(name: str, value: Any) -> str:
    """What an option must be, that is not."""
    return f"a number of at most {_DIGITS} digits" if _is_too_long(value) else _RULES[name][0]


def _is_too_long(value: Any) -> bool:
    return type(value) is int and abs(value) >= 10**_DIGITS


def _is_whole(value: Any, low: int) -> bool:
    return type(value) is int and value >= low and not _is_too_long(value)


def _python_value(value: Any) -> str:
    """What to do about a numpy number, which looks right and is refused: JSON could not hold it."""
    return " as a Python number, which its item() returns" if isinstance(value, np.generic) else ""


def _is_number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _is_token(value: Any) -> bool:
    return _is_whole(value, 0)


def _are_tokens(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_is_token, value))


def _whole(low: int, optional: bool = False) -> tuple[str, Any]:
    rule = f"a whole number of at least {low}" + (" or None" if optional else "")
    return rule, lambda value: (optional and value is None) or _is_whole(value, low)


def _number(rule: str, holds: Any) -> tuple[str, Any]:
    return f"a number {rule}".strip(), lambda value: _is_number(value) and holds(value)


def _choice(*values: str) -> tuple[str, Any]:
    return " or ".join(map(repr, values)), lambda value: isinstance(value, str) and value in values


# The options that limit each other; compared only where each of them is valid by itself.
_COMBINED = {"num_return_sequences", "num_beams", "do_sample", "marginalize", "search"}
_COMBINED |= {"min_length", "max_length", "min_new_tokens", "max_new_tokens"}
_COMBINED |= {"forced_bos_token_id", "forced_eos_token_id", "suppress_tokens"}

_FLAG: tuple[str, Any] = ("True or False", lambda value: type(value) is bool)
_TOKEN: tuple[str, Any] = ("a token id or None", lambda value: value is None or _is_token(value))
_TOKENS: tuple[str, Any] = ("a list of token ids or None", lambda value: value is None or _are_tokens(value))

# For every option: what it must be, in words, and the test of a value.
_RULES: dict[str, tuple[str, Any]] = {
    "n_docs": _whole(1),
    "marginalize": _choice("token", "sequence"),
    "search": _choice("thorough", "fast", "joint"),
    "do_deduplication": _FLAG,
    "exclude_bos_score": _FLAG,
    "num_beams": _whole(1),
    "num_return_sequences": _whole(1),
    "max_length": _whole(2),
    "min_length": _whole(0),
    "max_new_tokens": _whole(1, optional=True),
    "min_new_tokens": _whole(0, optional=True),
    # 1,024 tokens ** 13 is beyond float32, and a score over 1,024 ** 12 has lost digits
    "length_penalty": _number("from -8 to 8", lambda value: -8 <= value <= 8),
    "early_stopping": (
        "True, False or 'never'",
        lambda value: type(value) is bool or (isinstance(value, str) and value == "never"),
    ),
    "no_repeat_ngram_size": _whole(0),
    "encoder_no_repeat_ngram_size": _whole(0),
    "repetition_penalty": _number("from 1e-6 to 1e6", lambda value: 1e-6 <= value <= 1e6),
    "bad_words_ids": (
        "a list of non-empty lists of token ids or None",
        lambda value: (
            value is None or (isinstance(value, tuple) and all(_are_tokens(word) and word for word in value))
        ),
    ),
    "suppress_tokens": _TOKENS,
    "begin_suppress_tokens": _TOKENS,
    "forced_bos_token_id": _TOKEN,
    "forced_eos_token_id": _TOKEN,
    "eos_token_id": (
        "a token id, a list of them or None",
        lambda value: value is None or _is_token(value) or (_are_tokens(value) and len(value) > 0),
    ),
    "decoder_start_token_id": ("a token id", _is_token),
    "prompt_lookup_num_tokens": _whole(1, optional=True),
    "max_matching_ngram_size": _whole(1, optional=True),
    "do_sample": _FLAG,
    "temperature": _number("from 1e-6 to 1e6", lambda value: 1e-6 <= value <= 1e6),
    "top_k": _whole(0),
    "top_p": _number("above 0 and at most 1", lambda value: 0 < value <= 1),
    "typical_p": _number("above 0 and at most 1", lambda value: 0 < value <= 1),
    "epsilon_cutoff": _number("of at least 0 and below 1", lambda value: 0 <= value < 1),
    "seed": _whole(0, optional=True),
}
