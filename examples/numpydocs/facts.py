"""The documentation of numpy as facts: passages, and what can be asked about each."""

from __future__ import annotations

import importlib
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
MODULES = (
    "numpy",
    "numpy.linalg",
    "numpy.fft",
    "numpy.random",
    "numpy.strings",
    "numpy.ma",
    "numpy.polynomial.polynomial",
    "numpy.lib.stride_tricks",
)
MOST_WORDS = 90
MOST_TYPE_WORDS = 8
#: The last wording of each kind is for `dev` and `test` alone.
WORDINGS = {
    "function": (
        "Which function does this: {asked}?",
        "What is the name of the function for this: {asked}?",
        "Name the function with this job: {asked}.",
        "Which function of numpy has this purpose: {asked}?",
    ),
    "argument": (
        "What type has the argument {asked} of {name}?",
        "Which type is {asked} in {name}?",
        "What may {asked} be when I call {name}?",
        "What does {name} accept as {asked}?",
    ),
    "described": (
        "Which argument of {name} is this: {asked}?",
        "How is this argument of {name} called: {asked}?",
        "Name the argument of {name} with this meaning: {asked}.",
        "{name} takes an argument for this, which one: {asked}?",
    ),
    "result": (
        "What type has {asked}, which {name} returns?",
        "Of which type is the result {asked} of {name}?",
        "{name} returns {asked}; what type is it?",
        "When {name} gives back {asked}, which type do I get?",
    ),
}


SAYS = {"argument": "The argument {} is {}. {}", "result": "It returns {}, which is {}. {}"}
#: Of a ufunc: "log2(x, /, out=None, where=True, ...)" is its first paragraph.
_SIGNATURE = re.compile(r"[\w.]+\(.*\)( ?->.*)?")


@dataclass(frozen=True)
class Fact:
    """One passage, and what can be asked about it."""

    id: str
    title: str
    text: str
    kind: str
    asked: str
    answer: str
    meaning: str = ""
    """What an argument is for, where that can be asked."""

    def questions(self) -> list[tuple[str, dict[str, str], str]]:
        """What can be asked: its kind, what stands in a wording, and the answer."""
        names = {"name": self.title, "asked": self.asked}
        found = [(self.kind, names, self.answer)]
        if self.meaning:
            found.append(("described", {**names, "asked": self.meaning}, self.asked))
        return found


def functions() -> Iterator[tuple[str, str]]:
    """The name and the documentation of every public function, each once."""
    known: set[int] = set()
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in sorted(getattr(module, "__all__", dir(module))):
            value = getattr(module, name, None)
            if name.startswith("_") or not callable(value) or inspect.isclass(value) or id(value) in known:
                continue
            known.add(id(value))
            if text := inspect.getdoc(value):
                yield f"{module_name}.{name}", text


def facts_of(name: str, documentation: str) -> Iterator[Fact]:
    """The passages of one function."""
    sections = _sections(documentation)
    paragraphs = [_plain(part) for part in sections[""].split("\n\n")]
    paragraphs = [part for part in paragraphs if part and not _SIGNATURE.fullmatch(part)]
    if not paragraphs:
        return
    summary = paragraphs[0].rstrip(".")
    text = _cut(" ".join(paragraphs))
    yield Fact(name, name, text, "function", _lower(summary), name)
    for section, kind in (("Parameters", "argument"), ("Returns", "result")):
        entries = list(_entries(sections.get(section, "")))
        meanings = Counter(_first_sentence(described) for _, described in entries)
        for entry, described in entries:
            asked, _, kind_of = (part.strip() for part in entry.partition(" : "))
            answer = re.sub(r",? ?optional$", "", _plain(kind_of))
            if answer and len(answer.split()) <= MOST_TYPE_WORDS and re.fullmatch(r"\w+", asked):
                passage = _cut(SAYS[kind].format(asked, _plain(kind_of), described))
                meaning = _first_sentence(described)
                can_ask = kind == "argument" and 3 <= len(meaning.split()) <= 20 and meanings[meaning] == 1
                meaning = _lower(meaning) if can_ask else ""
                yield Fact(f"{name}#{kind}-{asked}", name, passage, kind, asked, answer, meaning)


def _sections(documentation: str) -> dict[str, str]:
    """The text under each heading of numpydoc; what comes before the first has an empty one."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", documentation, flags=re.MULTILINE)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def _entries(section: str) -> Iterator[tuple[str, str]]:
    """`name : type` and its indented description."""
    for entry in re.split(r"\n(?=\S)", section.strip("\n")):
        head, _, body = entry.partition("\n")
        yield head, _plain(body)


def _plain(text: str) -> str:
    """One line of text without the marks of reStructuredText."""
    text = re.sub(r"\.\. \w[\w-]*::[^\n]*", "", text)
    text = re.sub(r"(?::\w+:)?`~?([^`<]*?)\s*(?:<[^`]*>)?`", r"\1", text)
    return " ".join(text.replace("`", "").replace("*", "").split())


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.:;]) ", text)[0].rstrip(".:;")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _cut(text: str) -> str:
    words = text.split()
    return text if len(words) <= MOST_WORDS else " ".join(words[:MOST_WORDS]) + " ..."
