"""The sections of a report as tables of text, for the terminal, the page and `gpu.md` alike."""

from typing import Any

from ragengine_bench.harness.report import Row, Section, percentile

DECODE, STEP = "decode", "decode, a step"
LESS = " *"  # after the name of an engine that does less
NOISY = "noisy"  # in the place of a ratio that is not told
MOST_RATIOS = 3
"""Columns of ratios that fit a page."""
Cells = list[list[str]]


def tables_of(section: Section) -> list[tuple[str, list[str], Cells]]:
    """The tables of a section, as (title, columns, rows): times, costs, then the stages of each of ours."""
    if section.kind == "sweep":
        return [(section.title, *_sweep(section))]
    tables = [(section.title, *_times(section)), ("Throughput, roofline, memory", *_costs(section))]
    tables += [(f"{row.name}, by stage", *_stages(row)) for row in section.measured if row.stages]
    return tables


def _times(section: Section) -> tuple[list[str], Cells]:
    """A row an engine; a column of ratios for each of ours, or of the others where ours are many."""
    ours = [row for row in section.measured if row.ours] if section.kind != "batch" else []
    many = len(ours) > MOST_RATIOS
    others = ([row for row in section.measured if not row.ours] or ours[:1]) if many else ours
    named = (f"faster than {row.name} by" if many else f"{row.name} is faster by" for row in others)
    columns = ["", "median", "p90", "p99", *named]
    if section.kind == "batch":
        columns.append("throughput against one by one")
    cells = []
    for row in section.rows:
        name = row.name + (LESS if row.does_less else "")
        if not row.samples:
            cells.append([name, row.failure or "not measured", *[""] * (len(columns) - 2)])
            continue
        line = [name, *_percentiles(row.seconds)]
        for other in others:
            pair = (other, row) if many else (row, other)
            line.append("" if row is other else _faster(section, *pair))
        cells.append([*line, _gain(section, row)] if section.kind == "batch" else line)
    return columns, cells


def _faster(section: Section, row: Row, ours: Row) -> str:
    """How many times as long ``row`` takes, unless the runs of one of them are too far apart."""
    noisy = section.is_noisy(row) or section.is_noisy(ours)
    return NOISY if noisy else f"{row.median / ours.median:.1f} x"


def _gain(section: Section, row: Row) -> str:
    """How many times more questions a second a batch answers than the same engine one by one."""
    alone = row.name.rsplit(", ", 1)[0] + ", one by one"
    found = [other for other in section.measured if other.name == alone and other is not row]
    if not found:
        return ""
    if section.is_noisy(row) or section.is_noisy(found[0]):
        return NOISY
    return f"{row.questions_per_second / found[0].questions_per_second:.2f} x"


def _costs(section: Section) -> tuple[list[str], Cells]:
    columns = ["", "questions/s", "tokens/s", "roofline", "times its roofline", "load", "memory", "setting"]
    cells = []
    for row in section.rows:
        setting = "; ".join(part for part in (row.shown, row.does_less, row.failure) if part)
        if row.samples:
            speed = [f"{row.questions_per_second:.2f}", f"{row.tokens_per_second:.0f}"]
            spent = [time(row.load_seconds or 0), memory(row.peak_bytes)]
            cells.append([row.name, *speed, *_roofline(row), *spent, setting])
        else:
            cells.append([row.name, *[""] * 6, setting])
    return columns, cells


def _roofline(row: Row) -> tuple[str, str]:
    if row.times_roofline is None or row.whole_roofline is None:
        return "", ""
    return time(row.whole_roofline), f"{row.times_roofline:.1f} x"


def _stages(row: Row) -> tuple[list[str], Cells]:
    """A row a stage; the decoding steps once more, each by itself."""
    cells = []
    for name, values in row.stages.items():
        cells.append(
            [name, *_percentiles(values), f"{sum(values) / sum(row.seconds):.0%}", *_beside(row, name)]
        )
        if name == DECODE and row.step_seconds:
            cells.append([STEP, *_percentiles(row.step_seconds), "", "", ""])
    cells.append(["whole", *_percentiles(row.seconds), "", *_against(row.median, row.whole_roofline)])
    return ["stage", "p50", "p90", "p99", "share", "roofline", "times its roofline"], cells


def _beside(row: Row, stage: str) -> tuple[str, str]:
    return _against(percentile(row.stages[stage], 50), row.roofline(stage))


def _against(seconds: float, roofline: float | None) -> tuple[str, str]:
    return ("", "") if not roofline else (time(roofline), f"{seconds / roofline:.1f} x")


def _percentiles(values: list[float]) -> list[str]:
    return [time(percentile(values, percent)) for percent in (50, 90, 99)]


def _sweep(section: Section) -> tuple[list[str], Cells]:
    """A row a point, a column an engine: median and times its roofline."""
    names = list(dict.fromkeys(row.name for row in section.rows))
    points = list(dict.fromkeys(row.point for row in section.rows))
    found = {(row.point, row.name): row for row in section.rows}
    columns = [section.axis]
    for name in names:
        columns += [name, "times its roofline", "memory"]
    cells = []
    for point in points:
        line = [str(point)]
        for name in names:
            row = found.get((point, name))
            if row is None or not row.samples:
                line += ["" if row is None else row.failure, "", ""]
            else:
                ratio = "" if row.times_roofline is None else f"{row.times_roofline:.1f} x"
                line += [time(row.median), ratio, memory(row.peak_bytes)]
        cells.append(line)
    return columns, cells


def agreement(section: Section) -> str:
    """How many answers are the same as those of the first engine that does the whole work."""
    rows = [row for row in section.measured if not row.does_less and row.outputs]
    if len(rows) < 2 or section.kind == "sweep":
        return ""
    first, *others = rows
    found = []
    for row in others:
        same = sum(ours == theirs for ours, theirs in zip(row.outputs, first.outputs, strict=False))
        found.append(f"{row.name} {same} of {len(first.outputs)}")
    return f"The same answers as {first.name}: {', '.join(found)}."


def machine_line(machine: dict[str, Any]) -> str:
    """The machine and the versions, in a line."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items() if number)
    total = f"{machine['memory_bytes'] / 1e9:.0f} GB, " if machine.get("memory_bytes") else ""
    sets = f"{' '.join(machine['instruction_sets'])}, " if machine.get("instruction_sets") else ""
    steal = machine.get("steal")
    stolen = "" if steal is None else f"{steal:.0%} of the processor's time stolen, "
    return (
        f"{machine['processor']}, {machine['cores']} cores, {sets}{total}{machine['threads']} threads each, "
        f"{stolen}{machine['date']}; {versions}"
    )


def noise(section: Section) -> str:
    """Which rows are noisy, in a sentence; empty where none is."""
    names = [row.name for row in section.measured if section.is_noisy(row)]
    if not names:
        return ""
    return (
        f"Noisy: the runs of {', '.join(names)} spread by more than a third of their median, so no ratio is "
        "told; measure on a quieter machine, or with more --repeats."
    )


def time(seconds: float) -> str:
    """Seconds in a unit that can be read."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"


def memory(count: int | None) -> str:
    """Bytes in a unit that can be read."""
    if count is None:
        return ""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
