"""Which questions ask in the same words, so that a split does not put them on both sides."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ragengine.grounding.words import Word, words_of

_ASKS = 0.02  # share of the questions that a word is in which asks; rarer ones name something
_SEVERAL = 3  # questions that make a pattern; a rarer one joins the pattern that it is most like
_ALIKE = 0.5  # share of the words of two patterns that both have at least


def question_patterns(questions: Sequence[str]) -> NDArray[np.int64]:
    """A number for each question, [Q], equal for those that ask in the same words about different things.

    A word names what is asked for, and is left out, if it is in fewer than 2 % of the questions (or fewer
    than 3), or is mostly, or here, written with a capital and not first.  Patterns of one or two questions,
    such as those with typing errors, join the one that they share most words with.
    """
    split = [words_of(question) for question in questions]
    counts = Counter(folded for words in split for folded in {word.folded for word in words})
    capitals = Counter(
        word.folded for words, text in zip(split, questions, strict=True) for word in _capitals(words, text)
    )
    least = max(float(_SEVERAL), _ASKS * len(questions))
    asking = {word for word, count in counts.items() if count >= least and 2 * capitals[word] < count}
    patterns = []
    for words, text in zip(split, questions, strict=True):
        named = {word.start for word in _capitals(words, text)}
        patterns.append(
            tuple(word.folded for word in words if word.folded in asking and word.start not in named)
        )
    groups = _joined(Counter(patterns))
    return np.array([groups[pattern] for pattern in patterns], np.int64)


def _capitals(words: Sequence[Word], text: str) -> list[Word]:
    """The words but the first that begin with a capital."""
    return [word for word in words[1:] if text[word.start].isupper()]


def _joined(patterns: Counter[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    """A number for each pattern, the same for a rare one and the frequent one that it is most like."""
    frequent = [pattern for pattern, count in patterns.items() if count >= _SEVERAL]
    numbers = {pattern: number for number, pattern in enumerate(frequent)}
    for pattern in patterns:
        if pattern not in numbers:
            nearest = max(frequent, key=lambda other: _likeness(pattern, other), default=None)
            if nearest is not None and _likeness(pattern, nearest) >= _ALIKE:
                numbers[pattern] = numbers[nearest]
            else:
                numbers[pattern] = len(frequent) + len(numbers)
    return numbers


def _likeness(one: tuple[str, ...], other: tuple[str, ...]) -> float:
    """The share of the words of both that both have (Jaccard 1901)."""
    union = len({*one, *other})
    return len({*one} & {*other}) / union if union else 1.0
