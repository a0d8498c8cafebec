"""Text for the random checkpoints: what tokenizers are trained on, passages and questions.

The text has what goes wrong in practice: titles in quotes (RAG strips one
pair), double spaces (RAG collapses them, once), contractions and spaces before punctuation (decoding a
question from its WordPiece ids cleans those up), accents and capitals (an uncased tokenizer drops them),
characters that no vocabulary has (they become [UNK], and vanish when the question is decoded).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

NAMES = (
    "Reykjavík",
    "São Paulo",
    "Zürich",
    "Łódź",
    "Kyoto",
    "New York",
    "O'Hare",
    "Saint-Étienne",
    "Århus",
    "Xi'an",
    "Nairobi",
    "Quito",
    "Москва",
    "東京",
    "Αθήνα",
    "Port-au-Prince",
    "Ouagadougou",
    "Kraków",
    "L'Aquila",
    "Washington, D.C.",
)
WORDS = (
    "the",
    "city",
    "of",
    "is",
    "a",
    "capital",
    "and",
    "largest",
    "port",
    "on",
    "river",
    "with",
    "population",
    "about",
    "million",
    "people",
    "airport",
    "serves",
    "north",
    "coast",
    "its",
    "university",
    "was",
    "founded",
    "in",
    "1492",
    "3.5",
    "0.12",
    "2,161",
    "km²",
    "isn't",
    "they're",
    "I'm",
    "we've",
    "king's",
    "can't",
    "“old town”",
    '"twin"',
    "(see map)",
    "ÎLE",
    "naïve",
    "café",
    "—",
    "50%",
    "A/B",
    "C++",
    "e.g.",
    "do not",
    "über",
    "…",
)
RARE = ("🙂", "𝔘", "ሰላም", "\u200b", "ﬁ", "\t", "\u00a0", "½")
QUESTION_HEADS = (
    "What is the capital of",
    "who founded",
    "How many people live in",
    "Isn't there an airport near",
    "WHERE IS",
    "which river flows through",
    "They're asking : what's the \"port\" of",
    "when was",
)
QUESTION_TAILS = (
    "?",
    " ?",
    "",
    " in 1492?",
    ", and why ?",
    " ...",
    "!",
    " (it's a king's town , isn't it ?)",
)


@dataclass(frozen=True)
class Passage:
    """One line of the passages file."""

    id: str
    title: str
    text: str

    def as_row(self) -> dict[str, str]:
        return asdict(self)


def training_text(rng: np.random.Generator, n_lines: int = 120) -> list[str]:
    """Lines that a tokenizer of a few hundred entries can learn merges from."""
    triples = zip(QUESTION_HEADS, NAMES, QUESTION_TAILS, strict=False)
    lines = [f"{head} {name}{tail}" for head, name, tail in triples]
    return lines + [_sentence(rng, int(rng.integers(4, 16)), rare=0.0) for _ in range(n_lines)]


def random_passages(rng: np.random.Generator, n_passages: int, longest: int) -> list[Passage]:
    """Passages of 2 to `longest` words; their ids are not row numbers, so that mixing the two up shows."""
    first = int(rng.integers(100, 900))
    passages = []
    for row in range(n_passages):
        title = _choice(rng, NAMES) if rng.random() < 0.8 else _sentence(rng, 3, rare=0.1)
        wrap = rng.random()
        if wrap < 0.2:
            title = f'"{title}"'
        elif wrap < 0.25:
            title = f'""{title}"'  # only one quote on each side may go
        elif wrap < 0.3:
            title = f'"{title}'
        elif wrap < 0.33:
            title = ""
        text = _sentence(rng, int(rng.integers(2, longest + 1)), rare=0.04)
        passages.append(Passage(id=f"p{first + 3 * row}", title=title, text=text))
    return passages


def random_questions(rng: np.random.Generator, n_questions: int) -> list[str]:
    """Questions of clearly different lengths, so that a batch of them is padded."""
    questions = []
    for _ in range(n_questions):
        question = f"{_choice(rng, QUESTION_HEADS)} {_choice(rng, NAMES)}"
        if rng.random() < 0.5:
            question += " " + _sentence(rng, int(rng.integers(1, 8)), rare=0.08)
        question += _choice(rng, QUESTION_TAILS)
        if rng.random() < 0.15:
            question = f"  {question} "
        questions.append(question)
    return questions


def _sentence(rng: np.random.Generator, n_words: int, rare: float) -> str:
    pieces = []
    for _ in range(n_words):
        kind = rng.random()
        if kind < rare:
            word = _choice(rng, RARE)
        elif kind < 0.2:
            word = _choice(rng, NAMES)
        else:
            word = _choice(rng, WORDS)
        gap = rng.random()
        # Three spaces collapse to two, not to one: str.replace makes one pass.
        pieces.append(word + (" " if gap < 0.85 else "  " if gap < 0.92 else "   " if gap < 0.95 else ", "))
    return "".join(pieces).strip() + _choice(rng, (".", "", " .", "!"))


def _choice(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]
