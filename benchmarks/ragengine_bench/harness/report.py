"""The report: every sample, with what it was measured on; written again after every measurement."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from ragengine.errors import InputError
from ragengine.storage.atomic import output_file

SCHEMA = 2
MOST_SPREAD = 1 / 3
"""Of the runs of a row: with more, no ratio of its times is told."""
FILE = "report.json"


@dataclass
class Sample:
    """One run.  Times in seconds; ``stages`` and ``rooflines`` by stage, of all its calls together.

    ``tokens`` counts the tokens of its answers, ``questions`` how many were answered.
    """

    seconds: float
    questions: int = 1
    tokens: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    rooflines: dict[str, float] = field(default_factory=dict)
    step_seconds: list[float] = field(default_factory=list)


@dataclass
class Row:
    """One engine in one setting.  ``failure`` says why there are no samples.

    ``point`` is its place on a sweep's axis, ``outputs`` its answers, text or token ids; peak memory is what
    was resident while it loaded, and then while it answered for the first time.
    """

    name: str
    shown: str
    ours: bool = False
    does_less: str = ""
    point: int | str | None = None
    load_seconds: float | None = None
    load_peak_bytes: int | None = None
    peak_bytes: int | None = None
    failure: str = ""
    outputs: list[Any] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        return [sample.seconds for sample in self.samples]

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def spread(self) -> float:
        """How far apart its runs are: from their 10th to their 90th percentile, as a part of the median."""
        low, high = (percentile(self.seconds, percent) for percent in (10, 90))
        return (high - low) / self.median

    @property
    def questions_per_second(self) -> float:
        return sum(sample.questions for sample in self.samples) / sum(self.seconds)

    @property
    def tokens_per_second(self) -> float:
        return sum(sample.tokens for sample in self.samples) / sum(self.seconds)

    @property
    def stages(self) -> dict[str, list[float]]:
        """Seconds a run of every stage, in the order of the first run."""
        names = dict.fromkeys(name for sample in self.samples for name in sample.stages)
        return {name: [sample.stages.get(name, 0.0) for sample in self.samples] for name in names}

    @property
    def step_seconds(self) -> list[float]:
        """Seconds of every decoding step of every run."""
        return [seconds for sample in self.samples for seconds in sample.step_seconds]

    def roofline(self, stage: str) -> float | None:
        """The mean roofline of a stage in seconds, None where it has none."""
        found = [sample.rooflines[stage] for sample in self.samples if stage in sample.rooflines]
        return fmean(found) if found else None

    @property
    def whole_roofline(self) -> float | None:
        """The mean roofline of the stages that have one, in seconds."""
        found = [sum(sample.rooflines.values()) for sample in self.samples if sample.rooflines]
        return fmean(found) if found else None

    @property
    def times_roofline(self) -> float | None:
        """The median of (seconds / roofline), over the runs."""
        ratios = [s.seconds / sum(s.rooflines.values()) for s in self.samples if s.rooflines]
        return median(ratios) if ratios else None


@dataclass
class Section:
    """A table: rows that did the same work.  ``kind`` is generation, questions, batch or sweep."""

    kind: str
    title: str
    workload: dict[str, Any]
    axis: str = ""
    rows: list[Row] = field(default_factory=list)

    def is_noisy(self, row: Row) -> bool:
        """Whether the runs of ``row``, which did the same work, are too far apart to compare.

        The runs of ``questions`` are different questions, whose times differ by themselves.
        """
        return bool(row.samples) and self.kind != "questions" and row.spread > MOST_SPREAD

    @property
    def measured(self) -> list[Row]:
        """The rows that have samples."""
        return [row for row in self.rows if row.samples]


@dataclass
class Report:
    """All of it.  ``rates`` are operations a second by precision, and bytes a second."""

    command: list[str]
    machine: dict[str, Any]
    rates: dict[str, float] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)
    complete: bool = False
    schema: int = SCHEMA

    def write(self, folder: Path) -> None:
        """Replace ``report.json`` in one step: an interrupted run leaves the last whole one."""
        with output_file(folder / FILE, parents=True) as file:
            file.write(f"{json.dumps(dataclasses.asdict(self), indent=1)}\n".encode())

    @classmethod
    def read(cls, folder: Path) -> "Report":
        """Read a report again.  Raises :class:`InputError` for one that this version does not read."""
        content = json.loads((folder / FILE).read_text("utf-8"))
        if content.get("schema") != SCHEMA:
            raise InputError(
                f"{folder / FILE} has schema {content.get('schema')!r}; this version reads {SCHEMA}, "
                "so measure again."
            )
        sections = [
            Section(**section | {"rows": [_row(row) for row in section["rows"]]})
            for section in content["sections"]
        ]
        return cls(**content | {"sections": sections})


def _row(content: dict[str, Any]) -> Row:
    return Row(**content | {"samples": [Sample(**sample) for sample in content["samples"]]})


def percentile(values: list[float], percent: float) -> float:
    """The ``percent`` percentile, between samples by a straight line (numpy's default)."""
    return float(np.percentile(values, percent))
