"""The questions about the corpus, split by group into training, dev and test questions.

    train                    about training groups; with hard negatives and typing errors
    dev                      about other groups, in the wordings of the training
    questions                the test: about other groups again, of shipped passages; `kind` is one of `KINDS`
    questions_two_documents  test questions that one passage leads to and another answers
    questions_unanswerable   about facts that no passage states and places that are not shipped; no answers

A *group* is a passage, or all passages of a country with that of its capital. No group has both a dev
or test question and a training question, and the passages of test groups take no part in training: not as
negatives, not as retrieved documents, not in the texts that tokenizers are trained on.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from asking import HELD_OUT, OF_THE_COUNTRY, QUESTIONS, UNSTATED
from common import SEED, Passage, Row
from noise import with_typo
from places import fold

#: Share of the groups in (dev, test), by kind of passage.
SHARES = {"country": (0.05, 0.20), "city": (0.02, 0.08), "airport": (0.02, 0.10)}
#: Questions about each passage, by kind and split; 0 is one for every fact.
FACTS_ASKED = {
    "country": {"train": 0, "dev": 0, "test": 0},
    "city": {"train": 3, "dev": 1, "test": 2},
    "airport": {"train": 4, "dev": 2, "test": 2},
}
#: Countries are few: a training question about one comes in this many wordings.
COUNTRY_WORDINGS = 4
#: Every training airport has a question of one of these types besides the others: codes are hard to learn.
BY_CODE = ("airport.by_iata", "airport.by_icao")
TRAIN_TYPOS = 0.15
DEV_TYPOS = 0.10
#: The kinds of test questions, with their shares.
KINDS = {"plain": 0.6, "held_out_wording": 0.2, "lower_case": 0.1, "typo": 0.1}
#: Unanswerable questions of each type.
UNANSWERABLE = 80


def split_groups(passages: Iterable[Passage]) -> dict[str, str]:
    """Group -> train, dev or test."""
    splits = {}
    for passage in passages:
        kind = "country" if passage.group.startswith("country:") else passage.kind
        draw = random.Random(f"{SEED}:split:{passage.group}").random()
        dev, test = SHARES[kind]
        splits[passage.group] = "dev" if draw < dev else "test" if draw < dev + test else "train"
    return splits


def make_questions(
    passages: Sequence[Passage], shipped: Sequence[Passage], splits: dict[str, str]
) -> dict[str, list[Row]]:
    """Every questions file by its name; ``splits`` is of :func:`split_groups`."""
    of_split: dict[str, list[Passage]] = defaultdict(list)
    for passage in passages:
        of_split[splits[passage.group]].append(passage)
    test = [passage for passage in shipped if splits[passage.group] == "test"]
    negatives = Confusable([*of_split["train"], *of_split["dev"]])
    files = {
        "train": [row for passage in of_split["train"] for row in training_questions(passage, negatives)],
        "dev": [row for passage in of_split["dev"] for row in development_questions(passage)],
        "questions": [row for passage in test for row in test_questions(passage)],
        "questions_two_documents": two_document_questions(test),
        "questions_unanswerable": unanswerable_questions(of_split["test"], shipped, test),
    }
    for rows in files.values():
        random.Random(SEED).shuffle(rows)
    _check_no_leak(passages, files, splits)
    return files


class Confusable:
    """For each passage others that are easily confused with it: names and codes with the same beginning."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        by_name: dict[str, list[Passage]] = defaultdict(list)
        for passage in passages:
            by_name[passage.kind].append(passage)
        self._named: dict[str, list[str]] = {}
        for of_kind in by_name.values():
            ordered = [p.id for p in sorted(of_kind, key=lambda p: (fold(p.title), p.id))]
            self._named |= _neighbours(ordered, reach=2)
        self._coded = {
            fact: _neighbours(
                [p.id for p in sorted(by_name["airport"], key=lambda p: p.codes[code])], reach=2
            )
            for fact, code in zip(BY_CODE, ("iata", "icao"), strict=True)
        }

    def of(self, passage: Passage, fact: str) -> list[str]:
        """Ids of hard negatives for a question of a type."""
        return (self._coded[fact] if fact in BY_CODE else self._named)[passage.id]


def _neighbours(ordered: Sequence[str], reach: int) -> dict[str, list[str]]:
    """Those within `reach` places of each."""
    return {
        id: [*ordered[max(0, at - reach) : at], *ordered[at + 1 : at + 1 + reach]]
        for at, id in enumerate(ordered)
    }


def _facts(passage: Passage, split: str, rng: random.Random) -> list[str]:
    """The types of the questions about a passage; training questions by code come apart."""
    facts = sorted(fact for fact in passage.facts if split != "train" or fact not in BY_CODE)
    count = FACTS_ASKED[passage.kind][split] or len(facts)
    return rng.sample(facts, min(count, len(facts)))


def training_questions(passage: Passage, negatives: Confusable) -> list[Row]:
    """Some facts of a passage, each in one wording, of a country in several."""
    rng = random.Random(f"{SEED}:questions:{passage.id}")
    facts = _facts(passage, "train", rng) + ([rng.choice(BY_CODE)] if passage.kind == "airport" else [])
    rows = []
    for fact in facts:
        for wording in rng.sample(QUESTIONS[fact], COUNTRY_WORDINGS if passage.kind == "country" else 1):
            row = passage.ask(fact, wording)
            if rng.random() < TRAIN_TYPOS:
                row["question"] = with_typo(row["question"], rng)
            rows.append(row | {"hard_negative_ids": negatives.of(passage, fact)})
    return rows


def development_questions(passage: Passage) -> list[Row]:
    """Some facts of a passage, in a wording of the training."""
    rng = random.Random(f"{SEED}:questions:{passage.id}")
    rows = [passage.ask(fact, rng.choice(QUESTIONS[fact])) for fact in _facts(passage, "dev", rng)]
    for row in rows:
        if rng.random() < DEV_TYPOS:
            row["question"] = with_typo(row["question"], rng)
    return rows


def test_questions(passage: Passage) -> list[Row]:
    """Questions about some facts of a passage, each of one of `KINDS`."""
    rng = random.Random(f"{SEED}:questions:{passage.id}")
    rows = []
    for fact in _facts(passage, "test", rng):
        (kind,) = rng.choices(list(KINDS), list(KINDS.values()))
        row = passage.ask(fact, rng.choice((HELD_OUT if kind == "held_out_wording" else QUESTIONS)[fact]))
        if kind == "typo":
            plain, row["question"] = row["question"], with_typo(row["question"], rng)
            kind = "plain" if row["question"] == plain else kind
        if kind == "lower_case":
            row["question"] = row["question"].lower()
        rows.append(row | {"kind": kind})
    return rows


def two_document_questions(test: Sequence[Passage]) -> list[Row]:
    """Questions about a country that name only its capital."""
    by_group: dict[str, list[Passage]] = defaultdict(list)
    for passage in test:
        if passage.group.startswith("country:"):
            by_group[passage.group].append(passage)
    rows: list[Row] = []
    for passages in by_group.values():
        facts = {fact: (passage, passage.facts[fact]) for passage in passages for fact in passage.facts}
        capital = facts.get("city.capital_of")  # its reference names the capital without doubt
        if capital is None:
            continue
        city = capital[0]
        for fact, wordings in OF_THE_COUNTRY.items():
            found = facts.get(fact.replace("two_documents", "country"))
            if found:
                rows += _follow(fact, wordings, capital[1][0], found[1][1], (city, found[0]))
    return rows


def _follow(
    fact: str, wordings: Sequence[str], reference: str, answers: list[str], documents: tuple[Passage, Passage]
) -> list[Row]:
    """One question (in one of the wordings) whose second document answers it."""
    wording = random.Random(f"{SEED}:{fact}:{documents[1].id}").choice(wordings)
    ids = {"passage_id": documents[1].id, "passage_ids": [document.id for document in documents]}
    return [
        {"question": wording.format(x=reference), "answers": answers, "type": fact, **ids, "group": "country"}
    ]


def unanswerable_questions(
    unseen: Sequence[Passage], shipped: Sequence[Passage], test: Sequence[Passage]
) -> list[Row]:
    """Facts that no passage states about shipped places, and facts of ``unseen`` places that none names."""
    rng = random.Random(f"{SEED}:unanswerable")
    inside, said = {p.id for p in shipped}, fold(" ".join(f"{p.title} {p.text}" for p in shipped))
    rows: list[Row] = []
    for passage in rng.sample(test, UNANSWERABLE):
        fact = next(fact for fact in passage.facts if fact not in BY_CODE)
        question = rng.choice(UNSTATED[passage.kind]).format(x=passage.facts[fact][0])
        rows.append({"question": question, "answers": [], "type": "unanswerable.fact", "group": passage.kind})
    absent = [p for p in unseen if p.id not in inside and fold(p.title) not in said]
    for passage in rng.sample(absent, UNANSWERABLE):
        fact = rng.choice(sorted(passage.facts))
        row = passage.ask(fact, rng.choice(QUESTIONS[fact])) | {"answers": [], "type": "unanswerable.place"}
        del row["passage_id"]
        rows.append(row)
    return rows


def _check_no_leak(passages: Iterable[Passage], files: dict[str, list[Row]], splits: dict[str, str]) -> None:
    """Assert that the splits share no group and no question, that no test question occurs twice, and that no
    passage of the test is a negative.
    """
    group = {passage.id: passage.group for passage in passages}
    for first, second in (("train", "dev"), ("train", "questions"), ("dev", "questions")):
        groups, texts = (
            [{group[row["passage_id"]] for row in files[name]} for name in (first, second)],
            [{fold(row["question"]) for row in files[name]} for name in (first, second)],
        )
        shared = (groups[0] & groups[1]) | (texts[0] & texts[1])
        assert not shared, f"{first} and {second} share {sorted(shared)[:3]}"
    asked = {fold(row["question"]) for name in ("train", "dev") for row in files[name]}
    for name in ("questions_two_documents", "questions_unanswerable"):
        shared = asked & {fold(row["question"]) for row in files[name]}
        assert not shared, f"{name} and train or dev share {sorted(shared)[:3]}"
    seen = {passage.id for passage in passages if splits[passage.group] != "test"}
    negatives = {id for row in files["train"] for id in row["hard_negative_ids"]}
    assert negatives <= seen, f"passages of the test are negatives: {sorted(negatives - seen)[:3]}"
    text, times = Counter(fold(row["question"]) for row in files["questions"]).most_common(1)[0]
    assert times == 1, f"{text!r} is {times} times in the test"
