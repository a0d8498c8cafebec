"""Training examples with other answers put in, so that the generator reads and does not remember or guess.

*Swapped*: there are only about 190 countries to train on, each asked about many times, and a generator soon
knows their capitals by heart. In copies of their passages one answer is another capital, another number, ...

*Scrambled*: after two cycles the generator found the right place but lost its way in answers of several
tokens ("Kemeremerovo" for Kemerovo). Here the answer is a made-up name, code or number, mostly a long
one, which only copying token by token gets right.

The question then asks for what was put in. Used in training only.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable

from common import Passages, Question

LETTERS = {
    "country.iso2",
    "country.iso3",
    "country.currency_code",
    "country.domain",
    "airport.iata",
    "airport.icao",
}
CITIES = {"country.capital", "country.largest_city"}
#: Not scrambled: answers from a small set, in the title, or of a form that is copied well without.
CLOSED = {"continent", "country", "timezone", "state", "capital_of", "by_iata", "by_icao"}
CLOSED |= {"latitude", "longitude", "distance", "elevation"}

Substitute = Callable[[Question], str]


def other_letters(answer: str, rng: random.Random) -> str:
    """The same form in other letters and digits: .fr -> .kq, LFPG -> ZUWA."""
    alphabet = string.ascii_lowercase if answer.islower() else string.ascii_uppercase
    result = "".join(rng.choice(alphabet) if c.isalpha() else c for c in answer)
    return re.sub(r"\d", lambda _: rng.choice(string.digits), result)


def join_names(names: list[str]) -> str:
    """a, b and c."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def swapping(passages: Passages, questions: list[Question], rng: random.Random) -> Substitute:
    """Replace an answer by another real one of its kind; numbers get other digits, codes other letters."""
    asked = sorted({passages.row[q.passage_id] for q in questions})
    pools: dict[str, list[str]] = {
        kind: [passages.titles[row] for row in asked if passages.ids[row].startswith(kind)]
        for kind in ("city", "country")
    }
    for question in questions:
        pools.setdefault(question.type, []).append(question.answers[0])

    def substitute(question: Question) -> str:
        if question.type in LETTERS:
            return other_letters(question.answers[0], rng)
        if question.type == "country.neighbours":
            return join_names(rng.sample(pools["country"], rng.randint(1, 4)))
        other = rng.choice(pools["city" if question.type in CITIES else question.type])
        return re.sub(r"\d", lambda _: rng.choice(string.digits[1:]), other)

    return substitute


def scrambling(passages: Passages, rng: random.Random) -> Substitute:
    """Replace an answer by a name put together from pieces of names, or by other letters or digits."""

    def piece() -> str:
        word = rng.choice(rng.choice(passages.titles).split(" "))
        start = rng.randrange(max(1, len(word) - 2))
        return word[start : start + rng.randint(2, 5)]

    def name() -> str:
        words = [
            "".join(piece().lower() for _ in range(rng.randint(1, 3)))
            for _ in range(rng.choice((1, 1, 2, 3)))
        ]
        return rng.choice((" ", " ", " ", "-")).join(word.capitalize() for word in words)

    def substitute(question: Question) -> str:
        answer = question.answers[0]
        if question.type in LETTERS or any(c.isdigit() for c in answer):
            return other_letters(answer, rng) if question.type in LETTERS else other_digits(answer)
        if question.type == "country.neighbours":
            return join_names([name() for _ in range(rng.randint(2, 4))])
        return name()

    def other_digits(answer: str) -> str:
        return re.sub(r"\d", lambda _: rng.choice(string.digits[1:]), answer)

    return substitute


def put_in(
    passages: Passages, questions: list[Question], chosen: list[Question], substitute: Substitute, name: str
) -> tuple[Passages, list[Question]]:
    """Add, for each chosen question, a copy of its passage with another answer, and the question for that."""
    ids, texts, titles, added = [*passages.ids], [*passages.texts], [*passages.titles], []
    for number, question in enumerate(chosen):
        row, answer = passages.row[question.passage_id], substitute(question)
        pattern = rf"(?<!\w){re.escape(question.answers[0])}(?!\w)"
        text = re.sub(pattern, lambda _, answer=answer: answer, passages.texts[row])
        assert answer in text, (question, text)
        ids.append(f"{name}-{number}")
        texts.append(text)
        titles.append(passages.titles[row])
        added.append(Question(question.question, [answer], question.type, ids[-1]))
    together = Passages(ids, texts, titles, {passage_id: row for row, passage_id in enumerate(ids)})
    return together, [*questions, *added]


def enlarge(
    passages: Passages, questions: list[Question], swapped_copies: int, scrambled: int, seed: int
) -> tuple[Passages, list[Question]]:
    """Add `swapped_copies` of each question about a country, and `scrambled` questions about anything."""
    rng = random.Random(seed)
    countries = [q for q in questions if q.type.startswith("country.")]
    open_ended = [q for q in questions if q.type.split(".")[1] not in CLOSED]
    swap, scramble = swapping(passages, questions, rng), scrambling(passages, rng)
    result = put_in(passages, questions, countries * swapped_copies, swap, "swapped")
    picked = rng.choices(open_ended, k=scrambled)
    if scrambled:  # countries are few: all of them
        picked += [q for q in open_ended if q.type.startswith("country.")]
    return put_in(*result, picked, scramble, "scrambled")
