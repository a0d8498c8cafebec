"""Training examples with changed facts: `python augment.py --data data`.

Their passages are in the lines ("passage"), not in the corpus. They are made from training questions only; of
the test's passages only the codes are read, so that none is used again.

*swapped.jsonl*: there are only about 190 countries to train on, each with many questions, and a generator
soon knows their capitals by heart. In copies of their passages one answer is another capital, another
number, ...

*scrambled.jsonl*: answers of several tokens are where copying loses its way ("Kemeremerovo" for Kemerovo).
Here the answer is a made-up name, code or number, which only reading token by token gets right.

*lists.jsonl*: neighbours, two to six in the order of the alphabet, so that a list is read to its end.

*airports.jsonl*: airports with made-up names and codes, with questions by either code and by name. The codes
differ in one letter from those of a real airport (a hard negative), so that the encoder learns to spell
instead of learning which code belongs to which airport.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import click

from asking import QUESTIONS
from common import Row, Text, read_jsonl, read_texts, write_jsonl
from corpus import enumerate_names
from noise import with_typo
from questions import TRAIN_TYPOS

SEED = 7
SWAPPED_COPIES = 2
SCRAMBLED = 40_000
LIST_COPIES = 12

CODES = re.compile(r"\(IATA: (\w+), ICAO: (\w+)\)")
LETTERS = {
    "country.iso2",
    "country.iso3",
    "country.currency_code",
    "country.domain",
    "airport.iata",
    "airport.icao",
}
CITIES = {"country.capital", "country.largest_city"}
NEIGHBOURS = "country.neighbours"
#: Not scrambled: answers from a small set, in the title, or of a form that is copied well without.
CLOSED = {"continent", "country", "timezone", "state", "capital_of", "by_iata", "by_icao"}
CLOSED |= {"latitude", "longitude", "distance", "elevation"}

Substitute = Callable[[Row], str]


def other_digits(answer: str, rng: random.Random) -> str:
    """Digits drawn anew, the first not 0: 1,234 -> 8,053."""
    digits = iter([rng.choice(string.digits[1:]), *rng.choices(string.digits, k=len(answer))])
    return re.sub(r"\d", lambda _: next(digits), answer)


def other_letters(answer: str, rng: random.Random) -> str:
    """The same form in other letters and digits: .fr -> .kq, LFPG -> ZUWA."""
    alphabet = string.ascii_lowercase if answer.islower() else string.ascii_uppercase
    return other_digits("".join(rng.choice(alphabet) if c.isalpha() else c for c in answer), rng)


def one_letter_off(code: str, rng: random.Random) -> str:
    """KEF -> KUF"""
    at = rng.randrange(len(code))
    return code[:at] + rng.choice(string.ascii_uppercase.replace(code[at], "")) + code[at + 1 :]


class Names:
    """Names made up of pieces of the corpus's titles."""

    def __init__(self, titles: Sequence[str], rng: random.Random) -> None:
        self.titles, self.rng = titles, rng

    def piece(self) -> str:
        """Two to five letters of a word of a title."""
        word = self.rng.choice(self.rng.choice(self.titles).split(" "))
        start = self.rng.randrange(max(1, len(word) - 2))
        return word[start : start + self.rng.randint(2, 5)].lower()

    def make(self) -> str:
        """One to three words."""
        rng = self.rng
        words = [
            "".join(self.piece() for _ in range(rng.randint(1, 3))) for _ in range(rng.choice((1, 1, 2, 3)))
        ]
        return rng.choice((" ", " ", " ", "-")).join(word.capitalize() for word in words)


def swapping(passages: dict[str, Text], questions: Sequence[Row], rng: random.Random) -> Substitute:
    """Replace an answer by another real one of its kind; numbers get other digits, codes other letters."""
    cities = sorted(
        {passages[q["passage_id"]].title for q in questions if q["passage_id"].startswith("city")}
    )
    pools: dict[str, list[str]] = {}
    for question in questions:
        pools.setdefault(question["type"], []).append(question["answers"][0])

    def substitute(question: Row) -> str:
        answer, fact = question["answers"][0], question["type"]
        if fact in LETTERS:
            return other_letters(answer, rng)
        return other_digits(rng.choice(cities if fact in CITIES else pools[fact]), rng)

    return substitute


def scrambling(names: Names, rng: random.Random) -> Substitute:
    """Replace an answer by a made-up name, or by other letters or digits."""

    def substitute(question: Row) -> str:
        answer, fact = question["answers"][0], question["type"]
        if fact in LETTERS:
            return other_letters(answer, rng)
        if any(c.isdigit() for c in answer):
            return other_digits(answer, rng)
        if fact == NEIGHBOURS:
            return enumerate_names(sorted(names.make() for _ in range(rng.randint(2, 4))))
        return names.make()

    return substitute


def listing(countries: Sequence[str], rng: random.Random) -> Substitute:
    """Replace a list of neighbours by two to six other countries in the order of the alphabet."""

    def substitute(_question: Row) -> str:
        return enumerate_names(sorted(rng.sample(countries, rng.randint(2, 6))))

    return substitute


def replace_words(text: str, old: str, new: str) -> str:
    """The text with every whole `old` replaced."""
    return re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", lambda _: new, text)


def stands_in_a_name(text: str, answer: str) -> bool:
    """Whether the answer is somewhere part of a longer name: Africa, where the text has South Africa."""
    before, after = r"[A-Z]\w*[ -]", r"[ -][A-Z]"
    word = rf"(?<!\w){re.escape(answer)}(?!\w)"
    return answer[0].isalpha() and bool(re.search(rf"{before}{word}|{word}{after}", text))


def put_in(
    passages: dict[str, Text], chosen: Iterable[Row], substitute: Substitute, group: str
) -> Iterator[Row]:
    """Each chosen question about a copy of its passage with another answer."""
    for question in chosen:
        passage, answer = passages[question["passage_id"]], substitute(question)
        if stands_in_a_name(f"{passage.title}. {passage.text}", question["answers"][0]):
            continue
        text = replace_words(passage.text, question["answers"][0], answer)
        assert answer in text, (question, text)
        row = {key: question[key] for key in ("question", "type", "passage_id")}
        inline = {"title": passage.title, "text": text}
        yield row | {"answers": [answer], "group": group, "passage": inline}


def codes_of(passage: Text) -> tuple[str, ...]:
    """The IATA and the ICAO code of an airport; of other passages none."""
    found = CODES.search(passage.text)
    return found.groups() if found else ()


def scrambled_airports(
    passages: dict[str, Text], questions: Sequence[Row], names: Names, taken: set[str], rng: random.Random
) -> Iterator[Row]:
    """Training airports under made-up names and codes, with questions by code, and about a fact by name.

    A code of ``taken`` is not given, nor one twice.
    """
    of_iata, of_icao = {}, {}
    for passage in passages.values():
        for code, known in zip(codes_of(passage), (of_iata, of_icao), strict=False):
            known[code] = passage.id
    real = (sorted(of_iata), sorted(of_icao))
    asked = [q for q in questions if q["group"] == "airport" and q["type"].split(".")[1] not in CLOSED]
    for question in rng.sample(asked, len(asked)):
        passage = passages[question["passage_id"]]
        near_iata, near_icao = (rng.choice(codes) for codes in real)
        iata, icao = one_letter_off(near_iata, rng), one_letter_off(near_icao, rng)
        if iata in taken or icao in taken:
            continue
        taken |= {iata, icao}
        name = f"{names.make()} {rng.choice(('Airport', 'International Airport', 'Airfield'))}"
        text = CODES.sub(f"(IATA: {iata}, ICAO: {icao})", replace_words(passage.text, passage.title, name))
        line = {"passage": {"title": name, "text": text}, "group": "made_up_airport"}
        line["hard_negative_ids"] = [of_iata[near_iata], of_icao[near_icao]]
        for fact in ("airport.by_iata", "airport.by_icao", question["type"]):
            answer = {"airport.iata": iata, "airport.icao": icao}.get(fact, question["answers"][0])
            answer = name if "by_" in fact else answer
            wording = rng.choice(QUESTIONS[fact]).format(x=name, iata=iata, icao=icao)
            wording = with_typo(wording, rng) if rng.random() < TRAIN_TYPOS else wording
            if answer in text:
                yield {"question": wording, "answers": [answer], "type": fact} | line


def augment(data: Path) -> None:
    """Write the four files."""
    rng = random.Random(SEED)
    passages = {passage.id: passage for passage in read_texts(data / "training_passages.tsv")}
    taken = {code for passage in read_texts(data / "passages.tsv") for code in codes_of(passage)}
    questions = read_jsonl(data / "train.jsonl")
    names = Names([passage.title for passage in passages.values()], rng)
    of_countries = [q for q in questions if q["type"].startswith("country.")]
    lists = [q for q in of_countries if q["type"] == NEIGHBOURS]
    countries = sorted({passages[q["passage_id"]].title for q in of_countries})
    others = [q for q in of_countries if q["type"] != NEIGHBOURS]
    open_ended = [q for q in questions if q["type"].split(".")[1] not in CLOSED]
    swap, scramble = swapping(passages, questions, rng), scrambling(names, rng)
    files = {
        "swapped": put_in(passages, others * SWAPPED_COPIES, swap, "swapped"),
        "scrambled": put_in(passages, rng.choices(open_ended, k=SCRAMBLED), scramble, "scrambled"),
        "lists": put_in(passages, lists * LIST_COPIES, listing(countries, rng), "lists"),
        "airports": scrambled_airports(passages, questions, names, taken, rng),
    }
    for name, rows in files.items():
        written = list(rows)
        write_jsonl(data / f"{name}.jsonl", written)
        click.echo(f"{name}: {len(written):,} questions with passages of their own")


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
def main(data: Path) -> None:
    """Write the training examples."""
    augment(data)


if __name__ == "__main__":
    main()
