"""Write changed copies of questions and their passages: other names, numbers and days in the same sentences.

    python variants.py train.jsonl 3 > variants.jsonl       three copies of each question

A model that is trained on few questions learns the answers by heart.  Of a copy it cannot: its answer stands
nowhere but in its own passage, so that what is learned is to find and copy it.
"""

import json
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path

from passages import SENTENCE_END, Record, read

_WORD = re.compile(r"[A-Za-z0-9]+")
_NUMBERS = [
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "fourteen",
    "fifteen",
    "twenty",
]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_UNITS = ["seconds", "minutes", "hours", "days", "weeks", "months", "years"]
_SETS = (_NUMBERS, _DAYS, _MONTHS, _UNITS)
_DIGITS = frozenset(map(str, range(10)))
_SHARE = 0.7  # of the words that can be changed


def made_up(rng: random.Random, capital: bool) -> str:
    """A name that nobody has."""
    syllables = (rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(1, 3)))
    name = "".join(syllables) + rng.choice("nrlstdkm")
    return name.title() if capital else name


def other_word(word: str, names: list[str], rng: random.Random) -> str | None:
    """Another word of the same kind; None for one that stays: a common word."""
    for words in _SETS:
        capital = word[0].isupper()
        if word in words or (capital and word.lower() in words):
            new = rng.choice(words)
            return new.title() if capital else new
    if word.isdigit():
        first = rng.choice("123456789" if word[0] != "0" or len(word) == 1 else "0")
        return first + "".join(rng.choice("0123456789") for _ in word[1:])
    if word in names:
        capital = word[0].isupper()
        if word.isupper() and len(word) > 1:
            return "".join(rng.choice("ABCDEFGHIKLMNOPRSTUVWYZ") for _ in word)
        same = [name for name in names if name[0].isupper() == capital and not name.isupper()]
        return rng.choice(same) if rng.random() < 0.5 else made_up(rng, capital)
    return None


def names_of(passages: list[Record]) -> list[str]:
    """The words that are names: capitalised or in code, and nowhere an ordinary word."""
    texts = [f"{passage['title']} {passage['text']}" for passage in passages]
    code = {word for text in texts for part in re.findall(r"`([^`]+)`", text) for word in _WORD.findall(part)}
    lower = {word for text in texts for word in re.findall(r"\b[a-z]+\b", re.sub(r"`[^`]+`", " ", text))}
    inside = {word for text in texts for word in re.findall(r"(?<=[a-z,0-9] )[A-Z][A-Za-z0-9]*", text)}
    titles = {word for passage in passages for word in _WORD.findall(passage["title"]) if word[0].isupper()}
    return sorted({word for word in inside | titles if word.lower() not in lower} | code - lower - _DIGITS)


def variant(question: Record, passage: Record, names: list[str], rng: random.Random) -> Record:
    """One changed copy; a word is changed in passage, question and answer alike."""
    chosen: dict[str, str] = {}

    def change(match: re.Match[str]) -> str:
        word = match[0]
        if word not in chosen:
            new = other_word(word, names, rng)
            must = word in answer_words
            chosen[word] = new if new is not None and (must or rng.random() < _SHARE) else word
        return chosen[word]

    answer_words = set(_WORD.findall(question["answers"][0]))
    changed: Callable[[str], str] = lambda text: _WORD.sub(change, text)  # noqa: E731
    return {
        "question": changed(question["question"]),
        "answers": [changed(question["answers"][0])],
        "passage": {"title": changed(passage["title"]), "text": changed(_reordered(passage["text"], rng))},
    }


def _reordered(text: str, rng: random.Random) -> str:
    """The sentences after the first one in another order."""
    first, *others = SENTENCE_END.split(text)
    rng.shuffle(others)
    return " ".join([first, *others])


def main(source: str, count: int) -> None:
    """Print ``count`` copies of each question of ``source``, whose passages are in `passages.jsonl`."""
    rng = random.Random(f"{source} {count}")
    known = read(Path("passages.jsonl"))
    by_id, names = {passage["id"]: passage for passage in known}, names_of(known)
    for question in read(Path(source)):
        for _ in range(count):
            copy = variant(question, by_id[question["passage_id"]], names, rng)
            print(json.dumps(copy, ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
