"""Write copies of questions about pages that nobody has, from which reading can be learned and nothing else.

    python variants.py train.jsonl 120 > variants.jsonl      120 copies of each question

Two things are easier to learn from few questions than to read: the answers, and which fact of a page is
usually asked for.  So a copy has other names, numbers, days and months, and is put together anew: a question
and a sentence that answers it may come from any two questions of the same `type`, and the passages that it
must not be confused with (`hard_negatives`) tell of other facts of the same page.

All words come from the pages that the questions are about; pages without a question lend nothing.
"""

import json
import random
import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field
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
]
_NUMBERS += ["fifteen", "twenty", "thirty"]
_DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_MONTHS = ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october"]
_MONTHS += ["november", "december"]
_UNITS = ["seconds", "minutes", "hours", "days", "weeks", "months", "years"]
_SETS = (_NUMBERS, _DAYS, _MONTHS, _UNITS)
_BEGINNINGS = ["", *"bcdfghjklmnprstvwz", "br", "ch", "dr", "gr", "kl", "pr", "sch", "sh", "st", "th", "tr"]
_VOWELS = [*"aaeeiioouy", "ai", "au", "ee", "ou", "ie"]
_ENDINGS = ["", *"nrlstdkmpx", "ck", "nd", "rt", "ng", "ss", "th", "sky", "son"]
_SHARE = 0.85  # of the words that can be changed and are not the answer
_KNOWN = 0.4  # of new names: one of the pages; the others are made up
_NEGATIVES = 2
_BESIDES = 0.25  # of these: sentences that answer no question
_SUBJECT = "\x01"  # stands for a page's title


@dataclass
class Material:
    """What copies are put together from; the title of a page is ``_SUBJECT`` in it."""

    asked: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """By type: questions."""
    answering: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    """By type: sentences, and the answer as it stands there."""
    told: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """By folder: sentences that no question is about."""
    titles: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """By folder: titles of pages."""
    names: frozenset[str] = frozenset()


def material_of(questions: list[Record], known: list[Record]) -> Material:
    """Take questions, and the pages that they are about, to pieces."""
    by_id = {passage["id"]: passage for passage in known}
    asked_about = {page_of(question["passage_id"]) for question in questions}
    own = [passage for passage in known if page_of(passage["id"]) in asked_about]
    found, used = Material(names=names_of(own, questions)), set()
    for question in questions:
        passage, answer = by_id[question["passage_id"]], question["answers"][0]
        text = next(one for one in SENTENCE_END.split(passage["text"]) if holds(one, answer))
        used.add(text)
        found.asked[question["type"]].append(without_title(question["question"], passage["title"]))
        found.answering[question["type"]].append((without_title(text, passage["title"]), answer))
    for passage in own:
        folder = passage["id"].split("/")[0]
        found.titles[folder].append(passage["title"])
        others = [one for one in SENTENCE_END.split(passage["text"]) if one not in used]
        found.told[folder] += [without_title(one, passage["title"]) for one in others]
    return found


def page_of(passage_id: str) -> str:
    """The page of a passage."""
    return passage_id.split("#")[0]


def without_title(text: str, title: str) -> str:
    """The text with ``_SUBJECT`` for its title, in whatever case, but not in a code: ``beacon-ingest``."""
    return re.sub(rf"(?<![\w`#-]){re.escape(title)}(?![\w-])", _SUBJECT, text, flags=re.IGNORECASE)


def names_of(passages: list[Record], questions: list[Record]) -> frozenset[str]:
    """Words that name something: capitalised inside a sentence or a title, or in answers and nowhere else."""
    told = " ".join(passage["text"] for passage in passages)
    names = set(re.findall(r"(?<=[a-z,0-9] )[A-Z][A-Za-z0-9]*", told))
    names |= {word for passage in passages for word in _WORD.findall(passage["title"]) if word[0].isupper()}
    shared: set[str] = set()  # by two answers of one type: units
    answered: dict[str, set[str]] = defaultdict(set)
    for question in questions:
        answer = question["answers"][0]
        told = told.replace(answer, "")
        shared |= answered[question["type"]] & set(_WORD.findall(answer))
        answered[question["type"]] |= set(_WORD.findall(answer))
    common = shared | set(_WORD.findall(told))
    for word in set().union(*answered.values()):
        if word[0].isupper() or word not in common:
            names.add(word)
    return frozenset(
        name for name in names if not name.isdigit() and not any(name.lower() in words for words in _SETS)
    )


def made_up(rng: random.Random, capital: bool) -> str:
    """A name that nobody has."""
    count = rng.choice((1, 2, 2, 3))
    name = "".join(rng.choice(_BEGINNINGS) + rng.choice(_VOWELS) for _ in range(count)) + rng.choice(_ENDINGS)
    return name.title() if capital else name


def other_word(word: str, names: frozenset[str], rng: random.Random) -> str | None:
    """Another word of the same kind; None for one that stays: a common word."""
    for words in _SETS:
        if word.lower() in words:
            new = rng.choice(words)
            return new.title() if word[0].isupper() else new
    if word.isdigit():
        first = rng.choice("123456789" if word[0] != "0" or len(word) == 1 else "0")
        return first + "".join(rng.choice("0123456789") for _ in word[1:])
    if word not in names:
        return None
    if word.isupper() and len(word) > 1:
        return "".join(rng.choice("ABCDEFGHIKLMNOPRSTUVWYZ") for _ in word)
    same = sorted(name for name in names if name[0].isupper() == word[0].isupper() and not name.isupper())
    return rng.choice(same) if rng.random() < _KNOWN else made_up(rng, word[0].isupper())


def changed(text: str, answer: str, names: frozenset[str], rng: random.Random) -> tuple[str, str]:
    """A sentence with other names and numbers, and the answer as it stands there now."""
    answer_words = set(_WORD.findall(answer))
    names = names | answer_words if "-" in answer else names  # in a code every word is a name
    chosen: dict[str, str] = {}

    def change(match: re.Match[str]) -> str:
        word = match[0]
        if word not in chosen:
            new = other_word(word, names, rng)
            chosen[word] = (
                new if new is not None and (word in answer_words or rng.random() < _SHARE) else word
            )
        return chosen[word]

    return _WORD.sub(change, text), _WORD.sub(change, answer)


def variant(kind: str, material: Material, rng: random.Random) -> Record:
    """A copy of questions of one type, such as ``systems.port``."""
    folder, names = kind.split(".")[0], material.names
    title, _ = changed(rng.choice(material.titles[folder]), "", names, rng)
    text, answer = changed(*rng.choice(material.answering[kind]), names, rng)
    others = [other for other in material.answering if other != kind and other.split(".")[0] == folder]
    negatives = []
    for _ in range(_NEGATIVES):
        sentence = rng.choice(material.answering[rng.choice(others)])[0]
        if rng.random() < _BESIDES:
            sentence = rng.choice(material.told[folder])
        negatives.append(_passage(title, changed(sentence, "", names, rng)[0]))
    return {
        "question": rng.choice(material.asked[kind]).replace(_SUBJECT, title),
        "answers": [answer],
        "passage": _passage(title, text),
        "hard_negatives": negatives,
    }


def _passage(title: str, text: str) -> Record:
    return {"title": title, "text": text.replace(_SUBJECT, title)}


def _words(question: str) -> str:
    return " ".join(_WORD.findall(question.lower()))


def main(source: str, count: int) -> None:
    """Print ``count`` copies for each question of ``source``, whose passages are in `passages.jsonl`.

    A copy that happens to be a question of `test.jsonl`, which is measured with, is made again.
    """
    measured = {_words(question["question"]) for question in read(Path("test.jsonl"))}
    rng, questions = random.Random(f"{source} {count}"), read(Path(source))
    material = material_of(questions, read(Path("passages.jsonl")))
    for question in questions:
        for _ in range(count):
            copy = variant(question["type"], material, rng)
            while _words(copy["question"]) in measured or not holds(
                copy["passage"]["text"], copy["answers"][0]
            ):
                copy = variant(question["type"], material, rng)
            print(json.dumps(copy, ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
