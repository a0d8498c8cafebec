"""Copies of facts about functions that do not exist: read a passage, or learn nothing.

Most arguments of numpy are called and typed alike, so a type can be guessed from the name. In a copy a
passage has the name of another function, made up of pieces of real ones; an argument has another name and a
type dealt anew. Its hard negatives are another fact of that function, and the same fact of one whose name
resembles it.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Collection, Iterator, Sequence

from facts import MODULES, SAYS, WORDINGS, Fact, Row

COPIES = 3
#: Shares of the arguments with a made-up name, and of the types with words exchanged.
MADE_UP = 0.5


class Names:
    """Names made up of pieces of the functions that are trained on."""

    def __init__(self, functions: Sequence[str], existing: Collection[str], rng: random.Random) -> None:
        self.rng, self.existing = rng, frozenset(existing)
        self.words = sorted(
            {word for name in functions for word in name.rsplit(".", 1)[1].split("_") if word}
        )

    def word(self) -> str:
        """One to three pieces of two to five letters, or now and then a real word."""
        if self.rng.random() < 0.3:
            return self.rng.choice(self.words)
        return "".join(self.piece() for _ in range(self.rng.randint(1, 3)))

    def piece(self) -> str:
        """Two to five letters of a word."""
        word = self.rng.choice(self.words)
        start = self.rng.randrange(max(1, len(word) - 2))
        return word[start : start + self.rng.randint(2, 5)]

    def function(self) -> str:
        """A module and one to three words; no function that exists has the name."""
        words = [self.word() for _ in range(self.rng.choice((1, 1, 2, 2, 3)))]
        name = f"{self.rng.choice(MODULES)}.{'_'.join(words)}"
        return self.function() if name in self.existing else name

    def resembling(self, name: str) -> str:
        """The name with another module, or with a word more or another one; none that exists."""
        found = self._resembling(name)
        return self.resembling(name) if found in self.existing else found

    def _resembling(self, name: str) -> str:
        module, own = name.rsplit(".", 1)
        if self.rng.random() < 0.4:
            return f"{self.rng.choice([one for one in MODULES if one != module])}.{own}"
        words = own.split("_")
        at = self.rng.randrange(len(words) + 1)
        words[at : at + self.rng.randint(0, 1)] = [self.word()]
        return f"{module}.{'_'.join(words)}"


def renamed(fact: Fact, title: str, asked: str, answer: str) -> Fact:
    """The fact with other names; the same words of its description stay."""
    if fact.kind == "function":
        own = fact.title.rsplit(".", 1)[1]
        text = re.sub(rf"(?<![\w.]){re.escape(own)}(?!\w)", title.rsplit(".", 1)[1], fact.text)
        return dataclasses.replace(fact, title=title, text=text, answer=title)
    old, new = (SAYS[fact.kind].split("{}. ")[0].format(*pair) for pair in ((fact.asked, ""), (asked, "")))
    rest = fact.text.removeprefix(old).removeprefix(fact.answer)
    return dataclasses.replace(fact, title=title, text=f"{new}{answer}{rest}", asked=asked, answer=answer)


def made_up_copies(
    documented: Sequence[Sequence[Fact]], existing: Collection[str], rng: random.Random
) -> Iterator[Row]:
    """Lines of a questions file whose passages are in them.

    Args:
        documented: the facts of each function that is trained on; all words come from them.
        existing: names that no copy gets, those of dev and test among them.
        rng: what draws them.
    """
    names = Names([facts[0].title for facts in documented], existing, rng)
    others = [fact for facts in documented for fact in facts if fact.kind != "function"]
    asked, types = (sorted({getattr(fact, name) for fact in others}) for name in ("asked", "answer"))

    def copy(fact: Fact, title: str) -> Fact:
        argument = names.word() if rng.random() < MADE_UP else rng.choice(asked)
        kind = rng.choice(types)
        if rng.random() < MADE_UP:
            kind = re.sub(r"[A-Za-z]{4,}", lambda word: rng.choice((word[0], names.word())), kind)
        return renamed(fact, title, argument, kind)

    for facts in documented:
        for fact in facts * COPIES:
            made = copy(fact, names.function())
            negatives = [copy(rng.choice(facts), made.title)] if len(facts) > 1 else []
            if made.kind != "function":
                negatives.append(
                    dataclasses.replace(copy(fact, names.resembling(made.title)), asked=made.asked)
                )
            for kind, values, answer in made.questions():
                yield {
                    "question": rng.choice(WORDINGS[kind][:-1]).format(**values),
                    "answers": [answer],
                    "passage": passage(made),
                    "hard_negatives": [passage(one) for one in negatives if one.text != made.text],
                    "group": f"copy_{kind}",
                }


def passage(fact: Fact) -> dict[str, str]:
    """A passage within a line."""
    return {"title": fact.title, "text": fact.text}
