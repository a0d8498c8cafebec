"""The tables of README.md from the results of train.py: `python tables.py` writes release/tables.md."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from common import read_json

Figures = dict[str, Any]
#: Parts of bundle and index, and the files of each, as patterns below `release/`.
PARTS = {
    "question encoder, and what the passage encoder shares": ["bundle/question_encoder/weights.bin"],
    "passage encoder: last layer and projection": ["bundle/question_encoder/passages.bin"],
    "generator": ["bundle/generator/weights.bin"],
    "graphs and tokenizers": ["bundle/**/*.onnx", "bundle/**/*.json"],
    "index: FAISS (float16), vectors, passages": ["index/*"],
}
WEAK = 0.8


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(figures: Figures, name: str, *, interval: bool = False) -> str:
    """A fraction in percent, with its bootstrap interval; "" where it is unknown."""
    value = figures.get(name)
    if value is None:
        return ""
    ends = figures.get("intervals", {}).get(name) if interval else None
    return f"{100 * value:.1f} %" + (f" ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})" if ends else "")


def stages(report: Figures) -> str:
    """The dev figures after each stage of training."""
    dev = report["dev"]
    before, after = dev["index"], dev["checkpoint"]
    return table(
        [
            "after",
            "dev recall@5, all training passages",
            "dev exact match given the right passage",
            "dev exact match end to end",
        ],
        [
            ["encoders", percent(before["retrieval"], "passage_recall@5"), "", ""],
            [
                "generator",
                "",
                percent(dev["generator"], "exact_match_gold_passage"),
                percent(before["answers"], "exact_match"),
            ],
            [
                "joint",
                percent(after["retrieval"], "passage_recall@5"),
                "",
                percent(after["answers"], "exact_match"),
            ],
        ],
    )


def seconds(report: Figures, steps: dict[str, float]) -> str:
    """How long each step took, and of the training each stage."""
    stages = {name: of["seconds"] for name, of in report["stages"].items() if "seconds" in of}
    listed = ", ".join(f"{name} {taken:.0f} s" for name, taken in steps.items())
    inside = ", ".join(f"{name} {taken:.0f} s" for name, taken in stages.items())
    return f"{listed}; all {sum(steps.values()) / 60:.0f} minutes. Of the training: {inside}."


def sizes(release: Path) -> str:
    """Megabytes of each part, uncompressed and as git and pip compress them."""
    rows = []
    for part, patterns in PARTS.items():
        contents = [path.read_bytes() for pattern in patterns for path in release.glob(pattern)]
        raw, compressed = sum(map(len, contents)), sum(len(zlib.compress(one)) for one in contents)
        rows.append([part, f"{raw / 1e6:.1f}", f"{compressed / 1e6:.1f}"])
    rows.append(["all", *(f"{sum(float(row[column]) for row in rows):.1f}" for column in (1, 2))])
    return table(["part of bundle and index", "MB", "compressed"], rows)


def quality(figures: dict[str, Figures]) -> str:
    """RAG-Token beside RAG-Sequence."""
    ways = [figures["token"], figures["sequence"]]
    named = {
        "right passage among the first 5 of 10,000": "passage_recall@5",
        "exact match end to end": "exact_match",
        "F1": "f1",
    }
    rows = [[label, *(percent(of, name, interval=True) for of in ways)] for label, name in named.items()]
    for kind, first in ways[0]["kinds"].items():
        label = f"exact match, {kind} ({first['n']} questions)"
        rows.append([label, *(percent(of["kinds"][kind], "exact_match") for of in ways)])
    return table(["", "RAG-Token", "RAG-Sequence"], rows)


def weak_types(figures: Figures) -> str:
    """The types of questions with an exact match below `WEAK`, the worst first."""
    types = sorted(figures["types"].items(), key=lambda item: item[1]["exact_match"])
    return ", ".join(
        f"{name} {percent(of, 'exact_match')} (recall@5 {percent(of, 'passage_recall@5')}, n = {of['n']})"
        for name, of in types
        if of["exact_match"] < WEAK
    )


def folder_mb(folder: Path) -> str:
    """Megabytes of a folder's files."""
    return f"{sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6:.1f} MB"


def precisions(figures: dict[str, Figures], bundles: dict[str, Path]) -> str:
    """Weights as trained, rounded, and int8."""
    names = {
        "unrounded": "fp32, weights as trained",
        "token": "fp32, weights rounded (shipped)",
        "int8": "int8",
    }
    columns = ("exact_match", "f1", "passage_recall@5")
    rows = [
        [
            label,
            *(percent(figures[name], column, interval=True) for column in columns),
            folder_mb(bundles[name]),
        ]
        for name, label in names.items()
    ]
    return table(["", "exact match", "F1", "passage recall@5", "bundle"], rows)


def apart(figures: dict[str, Figures]) -> str:
    """The questions that are reported apart."""
    two = [figures[f"two_documents_{way}"] for way in ("token", "sequence")]
    none = figures["token"]["unanswerable"]
    types = {name: percent(of, "exact_match") for name, of in two[0]["types"].items()}
    return (
        f"two documents: {two[0]['n']} questions, exact match RAG-Token "
        f"{percent(two[0], 'exact_match', interval=True)}, RAG-Sequence "
        f"{percent(two[1], 'exact_match', interval=True)}; RAG-Token by type: {types}\n\nunanswerable: {none}"
    )


def all_tables(run: Path, release: Path) -> str:
    """All tables, and the sentences with figures."""
    report, figures, steps = (
        read_json(path) for path in (run / "report.json", release / "figures.json", release / "seconds.json")
    )
    bundles = {
        "unrounded": run / "bundle_unrounded",
        "token": release / "bundle",
        "int8": run / "bundle_int8",
    }
    texts = (
        stages(report),
        seconds(report, steps),
        sizes(release),
        quality(figures),
        f"below {WEAK:.0%}: {weak_types(figures['token'])}",
        apart(figures),
        precisions(figures, bundles),
    )
    return "\n\n".join(texts) + "\n"


@click.command(help=__doc__)
def main() -> None:
    """Write the tables."""
    here = Path(__file__).parent
    (here / "release" / "tables.md").write_text(all_tables(here / "run", here / "release"), encoding="utf-8")


if __name__ == "__main__":
    main()
