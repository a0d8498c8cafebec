"""Write changed copies of questions and their passages, from which reading can be learned and nothing else.

    python variants.py train.jsonl 60 > variants.jsonl      sixty copies of each question

Two things are easier to learn from few questions than to read.  One is the answers: so a copy has other
names, numbers and days.  The other is which fact of a passage is asked for, whatever the question says: so
most copies put the sentence with the answer among sentences of other pages.
"""

import json
import random
import re
import sys
from pathlib import Path

from passages import SENTENCE_END, Record, holds, read

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
_MIXED = 0.75  # of the copies


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


def variant(
    question: Record, passage: Record, known: list[Record], names: list[str], rng: random.Random
) -> Record:
    """One changed copy; a word is changed in passage, question and answer alike."""
    answer = question["answers"][0]
    text = _mixed(answer, passage, known, rng) if rng.random() < _MIXED else _reordered(passage["text"], rng)
    answer_words = set(_WORD.findall(answer))
    chosen: dict[str, str] = {}

    def change(match: re.Match[str]) -> str:
        word = match[0]
        if word not in chosen:
            new = other_word(word, names, rng)
            must = word in answer_words
            chosen[word] = new if new is not None and (must or rng.random() < _SHARE) else word
        return chosen[word]

    asked, answered, title, told = (
        _WORD.sub(change, one) for one in (question["question"], answer, passage["title"], text)
    )
    return {"question": asked, "answers": [answered], "passage": {"title": title, "text": told}}


def _mixed(answer: str, passage: Record, known: list[Record], rng: random.Random) -> str:
    """The sentence with the answer, and up to two of other pages, which are now about this page's subject."""
    own = [sentence for sentence in SENTENCE_END.split(passage["text"]) if holds(sentence, answer)][:1]
    subject = passage["title"].split()[0]
    for other in rng.sample(known, rng.randint(0, 2)):
        sentence = rng.choice(SENTENCE_END.split(other["text"]))
        own.append(re.sub(rf"\b{other['title'].split()[0]}\b", subject, sentence))
    rng.shuffle(own)
    return " ".join(own)


def _reordered(text: str, rng: random.Random) -> str:
    """The sentences after the first one in another order."""
    first, *others = SENTENCE_END.split(text)
    rng.shuffle(others)
    return " ".join([first, *others])


def _words(question: str) -> str:
    return " ".join(_WORD.findall(question.lower()))


def main(source: str, count: int) -> None:
    """Print ``count`` copies of each question of ``source``, whose passages are in `passages.jsonl`.

    A copy that happens to be a question of `test.jsonl`, which is measured with, is made again.
    """
    measured = {_words(question["question"]) for question in read(Path("test.jsonl"))}
    rng = random.Random(f"{source} {count}")
    known = read(Path("passages.jsonl"))
    by_id, names = {passage["id"]: passage for passage in known}, names_of(known)
    for question in read(Path(source)):
        for _ in range(count):
            copy = variant(question, by_id[question["passage_id"]], known, names, rng)
            while _words(copy["question"]) in measured:
                copy = variant(question, by_id[question["passage_id"]], known, names, rng)
            print(json.dumps(copy, ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
