"""What `python -m ragengine_bench.gpu` writes: ``gpu.json`` with every figure, ``gpu.md`` to read.

Each step is a process of its own and may be killed: it writes both files again after every measurement, with
what the other steps have left there.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragengine.errors import InputError
from ragengine.storage.atomic import output_file
from ragengine_bench.harness.tables import machine_line

SCHEMA = 2
JSON_FILE, MARKDOWN_FILE = "gpu.json", "gpu.md"


@dataclass
class Table:
    """Cells of text; the first column is what a row is about, the others are figures."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Append a row; numbers should have been formatted."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{self.title!r} has {len(self.columns)} columns, this row {len(cells)} cells")
        self.rows.append([str(cell) for cell in cells])


@dataclass
class Target:
    """A figure with its target and what was measured; ``met`` is None where a verdict would mean nothing."""

    figure: str
    target: str
    measured: str
    met: bool | None

    @classmethod
    def at_least(cls, figure: str, least: float, measured: float | None, unit: str = "x") -> "Target":
        """The target is ``measured >= least``."""
        met = measured is not None and measured >= least
        return cls._compared(figure, f">= {least:g} {unit}", measured, unit, met)

    @classmethod
    def below(cls, figure: str, most: float, measured: float | None, unit: str = "ms") -> "Target":
        """The target is ``measured < most``."""
        met = measured is not None and measured < most
        return cls._compared(figure, f"< {most:g} {unit}".strip(), measured, unit, met)

    @classmethod
    def _compared(cls, figure: str, target: str, measured: float | None, unit: str, met: bool) -> "Target":
        if measured is None:
            return cls(figure, target, "not measured", None)
        return cls(figure, target, f"{measured:.3g} {unit}".strip(), met)

    @property
    def verdict(self) -> str:
        return {True: "yes", False: "no", None: ""}[self.met]


@dataclass
class Step:
    """One step: its tables, the figures with targets, ``notes`` (sentences) and every sample (``data``)."""

    name: str
    title: str
    setting: dict[str, Any] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    seconds: float = 0.0
    complete: bool = False

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Step":
        tables = [Table(**table) for table in content["tables"]]
        return cls(
            **content | {"tables": tables, "targets": [Target(**target) for target in content["targets"]]}
        )


@dataclass
class GpuReport:
    """All steps of a run, in the order in which they were started."""

    machine: dict[str, Any]
    steps: list[Step] = field(default_factory=list)
    schema: int = SCHEMA

    @classmethod
    def read(cls, folder: Path) -> "GpuReport | None":
        """What earlier steps wrote; None where there is nothing.  Raises :class:`InputError`."""
        path = folder / JSON_FILE
        if not path.exists():
            return None
        content = json.loads(path.read_text("utf-8"))
        if content.get("schema") != SCHEMA:
            raise InputError(
                f"{path} has schema {content.get('schema')!r}; this version reads {SCHEMA}, so measure into "
                "another folder."
            )
        return cls(content["machine"], [Step.from_json(step) for step in content["steps"]])

    def put(self, step: Step) -> None:
        """Add a step, in the place of an older one of its name."""
        names = [other.name for other in self.steps]
        if step.name in names:
            self.steps[names.index(step.name)] = step
        else:
            self.steps.append(step)

    def write(self, folder: Path) -> None:
        """Replace both files, each in one step."""
        content = json.dumps(dataclasses.asdict(self), indent=1) + "\n"
        for name, text in ((JSON_FILE, content), (MARKDOWN_FILE, self.markdown())):
            with output_file(folder / name, parents=True) as file:
                file.write(text.encode())

    def markdown(self) -> str:
        """The whole run, figures with targets first."""
        targets = [(f"{step.name}: ", target) for step in self.steps for target in step.targets]
        parts = [", ".join([*self.machine["gpus"], machine_line(self.machine)])]
        parts += [markdown_table(_targets_table(targets))] if targets else []
        return "\n\n".join([*parts, *(step_markdown(step, level=2) for step in self.steps)]) + "\n"


class Recorder:
    """The file of a run, seen from a step: :meth:`save` after every measurement, :meth:`end` at the end."""

    def __init__(self, folder: Path, machine: dict[str, Any], step: Step) -> None:
        self._folder, self.step = folder, step
        self._report = GpuReport.read(folder) or GpuReport(machine)
        self._start = time.monotonic()
        self.save()

    def save(self) -> None:
        """Write what there is."""
        self.step.seconds = round(time.monotonic() - self._start, 1)
        self._report.put(self.step)
        self._report.write(self._folder)

    def compare(self, *targets: Target, counts: bool = True) -> None:
        """Keep figures with their targets; without a verdict where they do not ``count``."""
        for target in targets:
            self.step.targets.append(target if counts else dataclasses.replace(target, met=None))

    def end(self, failure: str = "") -> None:
        """Write that the step is over, and why it failed if it did."""
        self.step.failure, self.step.complete = failure, not failure
        self.save()


def step_markdown(step: Step, level: int = 1) -> str:
    """A step as it is printed and as it stands in the file."""
    state = "" if step.complete else " (failed)" if step.failure else " (not finished)"
    lines = [f"{'#' * level} {step.name}: {step.title}{state}"]
    if step.setting:
        lines.append(", ".join(f"{name} {value}" for name, value in step.setting.items()))
    lines += [markdown_table(table) for table in step.tables if table.rows]
    if step.targets:
        lines.append(markdown_table(_targets_table([("", target) for target in step.targets])))
    lines += step.notes
    lines += [f"Failed: {step.failure}"] if step.failure else []
    return "\n\n".join([*lines, f"{step.seconds:.0f} s"])


def _targets_table(targets: Sequence[tuple[str, Target]]) -> Table:
    """A row a figure; the text before it says whose it is."""
    table = Table("Targets", ["figure", "target", "measured", "met"])
    for owner, target in targets:
        table.add(f"{owner}{target.figure}", target.target, target.measured, target.verdict)
    return table


def markdown_table(table: Table) -> str:
    """A table whose columns stand under each other in a terminal too; empty columns are left out."""
    kept = [
        place for place in range(len(table.columns)) if place == 0 or any(row[place] for row in table.rows)
    ]
    cells = [[row[place].replace("|", "/") for place in kept] for row in [table.columns, *table.rows]]
    widths = [max(3, *(len(row[place]) for row in cells)) for place in range(len(kept))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(
        [f"**{table.title}**", "", *(_line(row, widths) for row in [cells[0], rule, *cells[1:]])]
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cells[0].ljust(widths[0])]
    padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return f"| {' | '.join(padded)} |"
