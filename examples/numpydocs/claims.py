"""The paper's claims, measured on this model: `python claims.py`, which `train.py` runs last.

Writes `results/figures.json`, `results/table.md`, `results/documents.svg` and `results/claims.svg`.  Every
figure is of `ragengine.evaluate` on `data/test.jsonl`: functions that no training question names, in wordings
of their own.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import click
from matplotlib import rcParams
from matplotlib.figure import Figure

from ragengine import RagEngine, build_index, evaluate

COUNTS, N_DOCS = range(1, 11), 5
SEED = 7


def measured(engine: RagEngine, questions: Path, **options: Any) -> dict[str, float]:
    """Exact match, F1, and how often the right passage is the first, or among five.

    Answers are kept beside the questions, so that a stopped run goes on, and none is computed twice.
    """
    kept = questions.with_name("answers")
    found = evaluate(engine, questions, resamples=0, predictions=kept, **options).figures
    names = ("exact_match", "f1", "passage_recall@1", "passage_recall@5")
    return {name: float(found[name]) for name in names if found.get(name) is not None}


def measure(here: Path) -> dict[str, Any]:
    """All figures, by claim."""
    run, questions = here / "run", here / "data" / "test.jsonl"
    bundle = run / "work" / "checkpoint" / "bundle"
    figures: dict[str, Any] = {}
    with RagEngine.load(bundle, index=run / "index") as engine:
        figures["RAG-Token"] = measured(engine, questions)
        figures["RAG-Sequence, the same weights"] = measured(engine, questions, marginalize="sequence")
        figures["closed book"] = measured(engine, questions, closed_book=True)
        figures["documents"] = {
            str(count): figures["RAG-Token"] if count == N_DOCS else measured(engine, questions, n_docs=count)
            for count in COUNTS
        }
    frozen = here / "run_frozen"
    with RagEngine.load(frozen / "work" / "checkpoint" / "bundle", index=frozen / "index") as engine:
        figures["retriever frozen in joint tuning"] = measured(engine, questions)
    with RagEngine.load(run / "work" / "index" / "bundle", index=run / "index") as engine:
        figures["before joint tuning"] = measured(engine, questions)
    figures["index swap"] = swapped(here, bundle)
    return figures


def swapped(here: Path, bundle: Path) -> dict[str, dict[str, float]]:
    """Exact match by index and by whose answers count: the documentation, or one with types exchanged.

    In the other world the types of test arguments are dealt out anew; nothing is trained for it.
    """
    lines = [json.loads(line) for line in (here / "data/test.jsonl").read_text("utf-8").splitlines()]
    asked = [line for line in lines if line["group"] == "argument"]
    given = [line["answers"][0] for line in asked]
    dealt = random.Random(SEED).sample(given, len(given))
    pairs = [(line, new) for line, new in zip(asked, dealt, strict=True) if line["answers"][0] != new]
    becomes = {line["passage_id"]: (line["answers"][0], new) for line, new in pairs}
    header, *rows = (here / "data/passages.tsv").read_text("utf-8").splitlines()
    other = here / "results" / "other_world"
    other.mkdir(parents=True, exist_ok=True)
    changed = []
    for row in rows:
        name, text, title = row.split("\t")
        if name in becomes:
            old, new = becomes[name]
            text = text.replace(f" is {old}", f" is {new}", 1)
        changed.append("\t".join((name, text, title)))
    (other / "passages.tsv").write_text("\n".join([header, *changed]) + "\n", "utf-8")
    build_index(other / "passages.tsv", other / "index", bundle=bundle)
    for world, answers in (
        ("documentation", lambda line, new: line["answers"]),
        ("exchanged", lambda line, new: [new]),
    ):
        text = "".join(json.dumps({**line, "answers": answers(line, new)}) + "\n" for line, new in pairs)
        (other / f"{world}.jsonl").write_text(text, "utf-8")
    found: dict[str, dict[str, float]] = {}
    for name, index in (("documentation", here / "run/index"), ("exchanged", other / "index")):
        with RagEngine.load(bundle, index=index) as engine:
            found[f"index of {name}"] = {
                f"answers of {world}": measured(engine, other / f"{world}.jsonl")["exact_match"]
                for world in ("documentation", "exchanged")
            }
    return found


def table(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    columns = ("exact_match", "f1", "passage_recall@1", "passage_recall@5")
    lines = ["| | exact match | F1 | right passage first | among five |", "|---|---|---|---|---|"]
    for name, values in figures.items():
        if name not in ("documents", "index swap"):
            cells = [f"{values[column]:.3f}" if column in values else "-" for column in columns]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| documents | " + " | ".join(figures["documents"]) + " |"]
    lines += ["|---" * (len(figures["documents"]) + 1) + "|"]
    matches = [f"{values['exact_match']:.3f}" for values in figures["documents"].values()]
    lines += ["| exact match | " + " | ".join(matches) + " |", ""]
    worlds = ("documentation", "exchanged")
    lines += [
        "| exact match | " + " | ".join(f"answers of {world}" for world in worlds) + " |",
        "|---|---|---|",
    ]
    for name, values in figures["index swap"].items():
        lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values.values()) + " |")
    return "\n".join(lines) + "\n"


def plot(figures: dict[str, Any], folder: Path) -> None:
    """The paper's Figure 3, and exact match of each way to answer."""
    rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "numpydocs"})
    documents = figures["documents"]
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot([int(count) for count in documents], [one["exact_match"] for one in documents.values()], "o-")
    axes.set(xlabel="documents", ylabel="exact match", ylim=(0, 1))
    axes.grid(alpha=0.3)
    figure.savefig(folder / "documents.svg", metadata={"Date": None})
    ways = {name: one["exact_match"] for name, one in figures.items() if "exact_match" in one}
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(ways)[::-1], list(ways.values())[::-1])
    axes.set(xlabel="exact match", xlim=(0, 1))
    figure.savefig(folder / "claims.svg", metadata={"Date": None})


def write(here: Path) -> None:
    """Measure everything, and write the files."""
    folder = here / "results"
    folder.mkdir(exist_ok=True)
    figures = measure(here)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    (folder / "table.md").write_text(table(figures), "utf-8")
    plot(figures, folder)
    click.echo(table(figures))


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path(__file__).parent)
def main(folder: Path) -> None:
    """Measure a trained model."""
    write(folder)


if __name__ == "__main__":
    main()
