"""Generation options: the names, defaults and meaning of `transformers.GenerationConfig`, plus RAG's."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ragengine.errors import OptionsError


@dataclass(frozen=True)
class GenerationOptions:
    """How an answer is searched for.  Checks itself once, when made, and names every wrong field.

    Lengths count target tokens with the decoder's start token, as in transformers.

    n_docs                  D, documents read per question (paper: k)
    marginalize             "token": every token sums over the documents (RAG-Token)
    num_beams               B; 1 is greedy search
    num_return_sequences    hypotheses returned per question, at most ``num_beams``
    max_length, min_length  of the answer in tokens
    length_penalty          a hypothesis' score is its log-probability / length ** length_penalty
    early_stopping          True: stop at ``num_beams`` finished hypotheses; False: when the best running
                            beam is unlikely to improve on them; "never": when it cannot
    no_repeat_ngram_size    no n-gram of this size occurs twice; 0 allows all
    forced_bos_token_id     the first token, whatever its probability
    forced_eos_token_id     the last token of an answer that reaches ``max_length``
    eos_token_id            token, or tokens, that end an answer
    decoder_start_token_id  what the decoder reads first
    """

    n_docs: int = 5
    marginalize: Literal["token", "sequence"] = "token"
    num_beams: int = 1
    num_return_sequences: int = 1
    max_length: int = 20
    min_length: int = 0
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    no_repeat_ngram_size: int = 0
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    decoder_start_token_id: int = 2

    def __post_init__(self) -> None:
        if isinstance(self.eos_token_id, list):
            object.__setattr__(self, "eos_token_id", tuple(self.eos_token_id))
        faults = [*self._range_faults(), *self._token_faults()]
        if self.marginalize not in ("token", "sequence"):
            faults.append(f"marginalize is {self.marginalize!r}, it must be 'token' or 'sequence'")
        if type(self.length_penalty) not in (int, float) or self.length_penalty != self.length_penalty:
            faults.append(f"length_penalty is {self.length_penalty!r}, it must be a number")
        if not (type(self.early_stopping) is bool or self.early_stopping == "never"):
            faults.append(f"early_stopping is {self.early_stopping!r}, it must be True, False or 'never'")
        if not faults and self.num_return_sequences > self.num_beams:
            wanted = self.num_return_sequences
            faults.append(
                f"num_return_sequences is {wanted}, it must be at most num_beams ({self.num_beams})"
            )
        if faults:
            raise OptionsError(f"Wrong generation options: {'; '.join(faults)}.")

    def _range_faults(self) -> list[str]:
        smallest = {"n_docs": 1, "num_beams": 1, "num_return_sequences": 1, "max_length": 2}
        smallest |= {"min_length": 0, "no_repeat_ngram_size": 0}
        values = ((name, getattr(self, name), low) for name, low in smallest.items())
        return [
            f"{name} is {value!r}, it must be a whole number of at least {low}"
            for name, value, low in values
            if type(value) is not int or value < low
        ]

    def _token_faults(self) -> list[str]:
        values: dict[str, tuple[Any, ...]] = {"decoder_start_token_id": (self.decoder_start_token_id,)}
        for name in ("forced_bos_token_id", "forced_eos_token_id", "eos_token_id"):
            value = getattr(self, name)
            values[name] = () if value is None else value if isinstance(value, tuple) else (value,)
        return [
            f"{name} is {getattr(self, name)!r}, it must be a token id"
            for name, ids in values.items()
            if any(type(token) is not int or token < 0 for token in ids)
        ]

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """``eos_token_id`` as a tuple; empty when nothing but the length ends an answer."""
        if self.eos_token_id is None:
            return ()
        return self.eos_token_id if isinstance(self.eos_token_id, tuple) else (self.eos_token_id,)

    def replace(self, **changes: Any) -> "GenerationOptions":
        """A copy with some options changed; an unknown name is an error that suggests the nearest."""
        check_names(changes)
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "GenerationOptions":
        """Options by name, for instance a bundle's defaults."""
        check_names(values)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All options by name, as JSON values."""
        return dataclasses.asdict(self)


OPTION_NAMES = tuple(field.name for field in dataclasses.fields(GenerationOptions))


def check_names(values: Mapping[str, Any]) -> None:
    """Refuse names that are not options, each with the nearest one that is."""
    faults = []
    for name in values:
        if name not in OPTION_NAMES:
            near = difflib.get_close_matches(str(name), OPTION_NAMES, 1)
            faults.append(
                f"{name!r} is not a generation option" + (f"; did you mean {near[0]!r}?" if near else "")
            )
    if faults:
        raise OptionsError(f"Wrong generation options: {'; '.join(faults)}.")
