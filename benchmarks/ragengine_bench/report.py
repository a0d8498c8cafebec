"""The report: a table in the terminal and every sample in JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ragengine_bench.measure import Samples


def print_comparison(console: Console, title: str, samples: Sequence[Samples]) -> None:
    """One row a way of doing it; the ratio is how many times faster the last one (ours) is."""
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("")
    for name in ("median", "p90", "ours is faster by"):
        table.add_column(name, justify="right")
    ours = samples[-1]
    for sample in samples:
        ratio = "" if sample is ours else f"{sample.median / ours.median:.1f} x"
        table.add_row(sample.name, _time(sample.median), _time(sample.p90), ratio)
    console.print(table)


def write_report(path: Path, machine: dict[str, Any], sections: dict[str, Sequence[Samples]]) -> None:
    """``report.json``: the machine, versions, and every sample in seconds."""
    path.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": machine,
        "seconds": {title: {s.name: list(s.seconds) for s in samples} for title, samples in sections.items()},
    }
    (path / "report.json").write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
