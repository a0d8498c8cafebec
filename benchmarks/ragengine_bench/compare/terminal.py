"""The report in the terminal."""

from collections.abc import Sequence

from rich.table import Table

from ragengine.cli.console import SafeConsole, line
from ragengine_bench.harness.report import Report, Section
from ragengine_bench.harness.tables import Cells, agreement, machine_line, noise, tables_of


def print_report(console: SafeConsole, report: Report) -> None:
    """Everything that was measured."""
    console.print(line(machine_line(report.machine)))
    for name, rate in report.rates.items():
        console.print(line(f"{name}: {rate / 1e9:.1f} · 10⁹"))
    for section in report.sections:
        for title, columns, rows in tables_of(section):
            _print(console, title, columns, rows)
            if "setting" in columns:
                _print_settings(console, section)
        for sentence in filter(None, (agreement(section), noise(section))):
            console.print(line(sentence), soft_wrap=True)


def _print(console: SafeConsole, title: str, columns: Sequence[str], rows: Cells) -> None:
    """Without the columns that are empty, and without settings, which are too wide for a table here."""
    kept = [
        place
        for place, name in enumerate(columns)
        if place == 0 or (name != "setting" and any(row[place] for row in rows))
    ]
    console.print()
    console.print(line(title, "bold"), soft_wrap=True)
    table = Table(box=None)
    for place in kept:
        table.add_column(columns[place], justify="left" if place == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(line(row[place]) for place in kept))
    console.print(table)


def _print_settings(console: SafeConsole, section: Section) -> None:
    for row in section.rows:
        less = f"; * {row.does_less}" if row.does_less else ""
        console.print(line(f"  {row.name}: {row.shown}{less}", "dim"), soft_wrap=True)
