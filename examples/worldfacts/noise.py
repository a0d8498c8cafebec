"""Questions with one typing error."""

from __future__ import annotations

import random
import string

#: Shorter words are left alone: an error in "is" or in an airport's code would make another word of it.
SHORTEST = 4


def with_typo(question: str, rng: random.Random) -> str:
    """The question with two letters swapped, or one dropped, doubled or replaced, in a word of 4 or more.

    Codes (words in capitals) and the first letter of a word stay; without such a word the question stays.
    """
    words = question.split(" ")
    bare = [word.rstrip("?.,") for word in words]
    places = [
        n for n, word in enumerate(bare) if len(word) >= SHORTEST and word.isalpha() and not word.isupper()
    ]
    if not places:
        return question
    place = rng.choice(places)
    words[place] = _slip(bare[place], rng) + words[place][len(bare[place]) :]
    return " ".join(words)


def _slip(word: str, rng: random.Random) -> str:
    """The word with one error after its first letter; never the word itself."""
    at = rng.randrange(1, len(word))
    kind = rng.choice(("swap", "drop", "double", "replace"))
    if kind == "swap" and at + 1 < len(word) and word[at] != word[at + 1]:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == "drop":
        return word[:at] + word[at + 1 :]
    if kind == "double":
        return word[:at] + word[at] + word[at:]
    other = rng.choice([letter for letter in string.ascii_lowercase if letter != word[at].lower()])
    return word[:at] + other + word[at + 1 :]
