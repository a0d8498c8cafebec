"""The paper's index hot-swapping (section 4.5) on worldfacts: `python hot_swap.py`.

Lewis et al. answer questions about world leaders with an index of Wikipedia from 2016 and one from 2018; the
answers follow the index, and the model is not trained again.  Here two indexes hold the world at the end of
1995 and on 1 January 2026: the 10,000 shipped passages, in which some fifty countries have another currency,
calling code, capital or name.  `world_changes.tsv` lists what differs, since when, and the
source.  The same questions are put to one engine before and after `RagEngine.swap_index`.

The table has the share of answers that are right for 1995 or for 2026, with either index: they should be
right with the index of their own time and wrong with the other.
"""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np

from asking import QUESTIONS
from ragengine import RagEngine
from ragengine.bundle.bundle import Bundle
from ragengine.corpus.passage import Passage
from ragengine.evaluation import exact_match
from ragengine.indexing.build import build_index
from ragengine.retrieval.encoder import TextEncoder
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import VECTORS_FILE
from wordings import SENTENCES

HERE = Path(__file__).parent
WORLDS = {"older": "31 December 1995", "newer": "1 January 2026"}
#: fact -> the country's passage that states it, and the type of its question
STATED_IN = {
    "capital": ("land", "country.capital"),
    "currency": ("life", "country.currency"),
    "currency_code": ("life", "country.currency_code"),
    "phone": ("life", "country.phone"),
    "name": ("", "city.capital_of"),  # in every passage; its question is about the country of a capital
}


@dataclass(frozen=True)
class Change:
    """A fact that differs: its value in the shipped passages, the older one, the newer one `since` a year.

    `place` is the subject of its question: the country, or for a country's name its capital.
    """

    country: str
    fact: str
    place: str
    shipped: str
    older: str
    newer: str
    since: str
    known_from: str

    def value(self, world: str) -> str:
        """The value in a world of `WORLDS`."""
        return self.older if world == "older" else self.newer

    def question(self, number: int) -> str:
        """The question for this fact; its wording depends on the number of the question."""
        wordings = QUESTIONS[STATED_IN[self.fact][1]]
        return wordings[number % len(wordings)].format(x=self.place)


def read_changes(path: Path = HERE / "world_changes.tsv") -> list[Change]:
    """Read the facts that differ between the worlds."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Change(**row) for row in csv.DictReader(file, delimiter="\t")]


def passages_of(world: str, shipped: Sequence[Passage], changes: Sequence[Change]) -> list[Passage]:
    """The shipped passages as they would be written in `world`."""
    passages = {passage.id: passage for passage in shipped}
    for change in changes:
        value = change.value(world)
        if change.fact == "name":
            for passage in list(passages.values()):
                passages[passage.id] = _replaced(passage, change.shipped, value, before="(?:[Tt]he )?")
            continue
        id = f"country-{change.country}-{STATED_IN[change.fact][0]}"
        stated = _replaced(passages[id], change.shipped, value)
        assert value in stated.text, (change, stated)
        passages[id] = stated
        if change.fact == "capital":
            _move_capital(passages, change.place, value)
    return list(passages.values())


def _replaced(passage: Passage, old: str, new: str, before: str = "") -> Passage:
    """The passage with the whole word `old` (and what matches `before` in front of it) replaced."""
    if old == new or old not in passage.text + passage.title:
        return passage
    word = rf"(?<!\w){before}{re.escape(old)}(?!\w)"
    return replace(passage, title=re.sub(word, new, passage.title), text=re.sub(word, new, passage.text))


def _move_capital(passages: dict[str, Passage], country: str, capital: str) -> None:
    """Let the passage of the city `capital`, and no other, say that it is the capital of `country`."""
    said = [sentence.format(country=country) for sentence in SENTENCES["city"]["capital_of"]]
    for passage in [p for p in passages.values() if p.id.startswith("city-") and country in p.text]:
        text = passage.text
        for sentence in said:
            text = text.replace(f" {sentence}", "")
        if passage.title == capital:
            text = f"{text} {said[0]}"
        passages[passage.id] = replace(passage, text=text)


def build_worlds(output: Path, bundle: Bundle, shipped: Path, changes: Sequence[Change]) -> dict[str, Path]:
    """Build the index of each world; the indexes by world.

    Passages that are as shipped keep the shipped vectors; the others are encoded.
    """
    output.mkdir(parents=True, exist_ok=True)
    with PassageIndex.open(shipped) as index:
        index.check_belongs_to(bundle)
        passages = index.passages(range(index.count))
    vectors = np.load(shipped / VECTORS_FILE, allow_pickle=False).astype(np.float32)
    assert bundle.manifest.passage_encoder is not None
    encoder = TextEncoder.load(bundle, bundle.manifest.passage_encoder)
    indexes = {}
    for world in WORLDS:
        start = time.perf_counter()
        written = passages_of(world, passages, changes)
        new = [row for row, pair in enumerate(zip(passages, written, strict=True)) if pair[0] != pair[1]]
        vectors_of_world = vectors.copy()
        vectors_of_world[new] = encoder.encode_by_length([(written[r].title, written[r].text) for r in new])
        np.save(output / f"{world}.npy", vectors_of_world)
        lines = (json.dumps(asdict(passage), ensure_ascii=False) + "\n" for passage in written)
        (output / f"{world}.jsonl").write_text("".join(lines), encoding="utf-8")
        indexes[world] = output / world
        build_index(
            output / f"{world}.jsonl",
            indexes[world],
            bundle=bundle,
            embeddings=output / f"{world}.npy",
            force=True,
        )
        click.echo(
            f"{world}: {len(written):,} passages, {len(new)} of them not as shipped, "
            f"indexed in {time.perf_counter() - start:.1f} s"
        )
    return indexes


def right_answers(answers: Sequence[str], changes: Sequence[Change], world: str) -> list[bool]:
    """Which answers are right in a world, by exact match."""
    return [
        exact_match(answer, [change.value(world)]) for answer, change in zip(answers, changes, strict=True)
    ]


def print_table(answers: dict[str, list[str]], changes: Sequence[Change]) -> None:
    """Print the paper's table, then the questions answered wrongly with the index of their own time."""
    click.echo(f"\n{len(changes)} questions         " + "".join(f"{w} index    " for w in WORLDS))
    for world, date in WORLDS.items():
        shares = [sum(right_answers(answers[index], changes, world)) / len(changes) for index in WORLDS]
        click.echo(f"answers of {date:18}" + "".join(f"{share:11.1%}    " for share in shares))
    for world in WORLDS:
        right = right_answers(answers[world], changes, world)
        for number in (n for n, is_right in enumerate(right) if not is_right):
            change = changes[number]
            click.echo(
                f"wrong with the {world} index: {change.question(number)} "
                f"{answers[world][number]!r}, not {change.value(world)!r}"
            )


@click.command(help=__doc__)
@click.option("--bundle", type=click.Path(path_type=Path), default=HERE / "bundle", show_default="bundle/")
@click.option("--index", type=click.Path(path_type=Path), default=HERE / "index", show_default="index/")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=HERE.parent.parent / "build" / "hot_swap",
    show_default="build/hot_swap",
    help="Folder for the two indexes.",
)
def main(bundle: Path, index: Path, output: Path) -> None:
    """Build both worlds, ask, swap, ask again."""
    changes = read_changes()
    indexes = build_worlds(output, Bundle.open(bundle), index, changes)
    questions = [change.question(number) for number, change in enumerate(changes)]
    answers: dict[str, list[str]] = {}
    with RagEngine.load(bundle, index=indexes["older"]) as engine:
        for world in WORLDS:
            start = time.perf_counter()
            engine.swap_index(indexes[world])
            swapped = time.perf_counter()
            answers[world] = [engine.generate(question).text for question in questions]
            click.echo(
                f"{world}: swapped in {swapped - start:.2f} s, "
                f"{len(questions)} answers in {time.perf_counter() - swapped:.1f} s"
            )
    print_table(answers, changes)


if __name__ == "__main__":
    main()
