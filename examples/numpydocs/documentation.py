"""Passages and questions from numpy's own documentation: `python documentation.py --output data`.

Every function has a passage of its summary, one for each argument and one for each value that it returns. A
question asks for what such a passage says. Functions are split: a question of `dev` or `test` is about a
function that no training question names, and `test` has a wording of its own as well.
"""

from __future__ import annotations

import importlib
import inspect
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

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
SEED = 7
#: The last wording of each kind is asked in `dev` and `test` alone.
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
    "result": (
        "What type has {asked}, which {name} returns?",
        "Of which type is the result {asked} of {name}?",
        "{name} returns {asked}; what type is it?",
        "When {name} gives back {asked}, which type do I get?",
    ),
}


@dataclass(frozen=True)
class Fact:
    """One passage, and what can be asked about it."""

    id: str
    title: str
    text: str
    kind: str
    asked: str
    answer: str

    def question(self, wording: str) -> dict[str, Any]:
        """A line of a questions file."""
        text = wording.format(asked=self.asked, name=self.title)
        return {"question": text, "answers": [self.answer], "passage_id": self.id, "group": self.kind}


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
    paragraphs = [part for part in paragraphs if part and not _is_signature(part, name)]
    if not paragraphs:
        return
    summary = paragraphs[0].rstrip(".")
    text = _cut(" ".join(paragraphs))
    yield Fact(name, name, text, "function", summary[0].lower() + summary[1:], name)
    for section, kind, says in (
        ("Parameters", "argument", "The argument {} is {}. {}"),
        ("Returns", "result", "It returns {}, which is {}. {}"),
    ):
        for entry, described in _entries(sections.get(section, "")):
            asked, _, kind_of = (part.strip() for part in entry.partition(" : "))
            answer = re.sub(r",? ?optional$", "", _plain(kind_of))
            if answer and len(answer.split()) <= 8 and re.fullmatch(r"\w+", asked):
                passage = _cut(says.format(asked, _plain(kind_of), described))
                yield Fact(f"{name}#{kind}-{asked}", name, passage, kind, asked, answer)


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
    text = re.sub(r":\w+:`~?([^`<]*)[^`]*`", r"\1", text)
    return " ".join(text.replace("`", "").replace("*", "").split())


def _is_signature(paragraph: str, name: str) -> bool:
    return paragraph.startswith(name.rsplit(".", 1)[-1] + "(")


def _cut(text: str) -> str:
    words = text.split()
    return text if len(words) <= MOST_WORDS else " ".join(words[:MOST_WORDS]) + " ..."


def build(output: Path, most_functions: int | None = None) -> None:
    """Write `passages.tsv`, `train.jsonl`, `dev.jsonl` and `test.jsonl`."""
    rng = random.Random(SEED)
    documented = list(functions())
    rng.shuffle(documented)
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "dev": [], "test": []}
    passages: dict[str, Fact] = {}
    for number, (name, text) in enumerate(documented[:most_functions]):
        split = {0: "test", 1: "dev"}.get(number % 10, "train")
        for fact in facts_of(name, text):
            if passages.setdefault(fact.id, fact) is not fact:
                continue
            *training, held_out = WORDINGS[fact.kind]
            if split == "train":
                rows[split] += [fact.question(wording) for wording in training]
            else:
                wording = held_out if split == "test" else rng.choice([*training, held_out])
                rows[split].append(fact.question(wording))
    output.mkdir(parents=True, exist_ok=True)
    lines = ["id\ttext\ttitle", *(f"{one.id}\t{one.text}\t{one.title}" for one in passages.values())]
    (output / "passages.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    for split, entries in rows.items():
        text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        (output / f"{split}.jsonl").write_text(text, "utf-8")
    counts = ", ".join(f"{len(entries):,} {split}" for split, entries in rows.items())
    named = len({one.title for one in passages.values()})
    click.echo(f"{len(passages):,} passages of {named} functions; questions: {counts}")


@click.command(help=__doc__)
@click.option("--output", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
def main(output: Path) -> None:
    """Write the files."""
    build(output)


if __name__ == "__main__":
    main()
