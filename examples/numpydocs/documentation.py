"""Passages and questions from numpy's own documentation: `python documentation.py --output data`.

Every function has a passage of its summary, one for each argument and one for each value that it returns. A
question asks for what such a passage says. Functions are split: a question of `dev` or `test` is about a
function that no training question names, and `test` has a wording of its own as well. Functions of one
summary (`numpy.log2` and `numpy.ma.log2`) are in one split, and each is right where the summary is asked for.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from copies import made_up_copies
from facts import WORDINGS, Fact, Row, facts_of, functions

SEED = 7


def split_of(documented: dict[str, list[Fact]]) -> dict[str, str]:
    """The split of each function: those of one summary are together; a tenth is `dev`, a tenth `test`."""
    summaries = list(dict.fromkeys(facts[0].asked for facts in documented.values()))
    random.Random(SEED).shuffle(summaries)
    splits = {
        summary: {0: "test", 1: "dev"}.get(number % 10, "train") for number, summary in enumerate(summaries)
    }
    return {name: splits[facts[0].asked] for name, facts in documented.items()}


def questions_of(fact: Fact, split: str, same_summary: Sequence[str], rng: random.Random) -> Iterator[Row]:
    """The lines of a questions file about one passage."""
    for kind, names, answer in fact.questions():
        *training, held_out = WORDINGS[kind]
        wordings = {"train": training, "dev": [rng.choice([*training, held_out])], "test": [held_out]}
        others = [name for name in same_summary if name != fact.id] if kind == "function" else []
        for wording in wordings[split]:
            yield {
                "question": wording.format(**names),
                "answers": [answer, *others],
                "passage_id": fact.id,
                "passage_ids": [fact.id, *others],
                "group": kind,
                "type": kind,
            }


def build(output: Path, most_functions: int | None = None) -> None:
    """Write `passages.tsv`, `train.jsonl`, `dev.jsonl`, `test.jsonl`, and the copies to train on."""
    rng = random.Random(SEED)
    names = list(functions())
    rng.shuffle(names)
    documented = {name: list(facts_of(name, text)) for name, text in names[:most_functions]}
    documented = {name: facts for name, facts in documented.items() if facts}
    same: defaultdict[str, list[str]] = defaultdict(list)
    for name, facts in documented.items():
        same[facts[0].asked].append(name)
    splits = split_of(documented)
    rows: dict[str, list[Row]] = {"train": [], "dev": [], "test": []}
    passages = {fact.id: fact for facts in documented.values() for fact in facts}
    for fact in passages.values():
        split = splits[fact.title]
        rows[split] += questions_of(fact, split, same[documented[fact.title][0].asked], rng)
    known = [facts for name, facts in documented.items() if splits[name] == "train"]
    rows["copies"] = list(made_up_copies(known, documented, rng))
    output.mkdir(parents=True, exist_ok=True)
    lines = ["id\ttext\ttitle", *(f"{one.id}\t{one.text}\t{one.title}" for one in passages.values())]
    (output / "passages.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    for split, entries in rows.items():
        text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        (output / f"{split}.jsonl").write_text(text, "utf-8")
    counts = ", ".join(f"{len(entries):,} {split}" for split, entries in rows.items())
    click.echo(f"{len(passages):,} passages of {len(documented)} functions; questions: {counts}")


@click.command(help=__doc__)
@click.option("--output", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
def main(output: Path) -> None:
    """Write the files."""
    build(output)


if __name__ == "__main__":
    main()
