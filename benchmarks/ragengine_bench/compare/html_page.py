"""One HTML page with everything in it: no other file, no network, no script."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ragengine.storage.atomic import output_file
from ragengine_bench.harness.report import Report
from ragengine_bench.harness.tables import agreement, machine_line, noise, tables_of

FILE = "index.html"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 72rem; margin: 2rem auto;
       padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.5rem } h3 { font-size: 1rem }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #e4e7eb; vertical-align: top }
th:first-child, td:first-child, td.text { text-align: left } th { font-weight: 600; font-size: .85rem }
img { max-width: 100%; height: auto } .faint { color: #616e7c }
.warn { background: #fdf6e3; padding: .5rem 1rem }
p, li, h2, h3 { overflow-wrap: anywhere }
@media (max-width: 40rem) {  /* a phone: each row is a card of names and values, so that nothing is beside */
  body { margin-top: 1rem } table, tbody, tr { display: block } tr.head, td:empty { display: none }
  tr { border-bottom: 1px solid #e4e7eb; padding: .4rem 0 }
  td, td.text { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .05rem 0;
                text-align: right }
  td::before { content: attr(data-name); color: #616e7c; text-align: left; flex: none; max-width: 50% }
  td:first-child { font-weight: 600 } td:first-child::before { content: none }
}
"""
_WIDE = ("setting",)

_HOW = """
<p><b>Ratios</b> are median against median of this run. In generation, batches and sweeps the engines of a
table are loaded side by side, each in a process of its own, and take turns; whole questions go to one
engine after the other. Every engine runs once before it is timed.</p>
<p><b>The roofline</b> of a stage is the larger of (operations / GEMM rate) and (bytes / bandwidth), both
rates measured in this run, in the precision of the row. It counts matrix products and the memory that they
must touch, nothing else, so it cannot be reached. "3.0 x" beside a roofline: the stage takes three times its
roofline. Weights that stay in the processor's cache can be read faster than the bandwidth, which is the
memory's.</p>
<p><b>Memory</b> is the most that was resident in the engine's own process while it answered for the first
time; <b>load</b> is importing and opening it, and for CTranslate2 and optimum-onnx converting the model
too.</p>
<p><b>*</b>: such an engine does less. It searches every document by itself and joins nothing; it is given
the same documents, beams and lengths. Random weights are right for speed and say nothing about answers.</p>
"""


def write_page(report: Report, plots: Sequence[Path], folder: Path) -> Path:
    """Write ``index.html``; ``plots`` are SVG files named by their section's number."""
    parts = [_head(report)]
    for number, section in enumerate(report.sections, start=1):
        parts.append(f"<h2>{escape(section.title)}</h2>")
        for place, (title, columns, rows) in enumerate(tables_of(section)):
            parts.append(f"<h3>{escape(title)}</h3>" if place else "")
            parts.append(_table(columns, rows))
            if place == 0:
                parts += [_picture(plot) for plot in plots if plot.name.startswith(f"{number}-")]
                told = filter(None, (agreement(section), noise(section)))
                parts += [f'<p class="faint">{escape(sentence)}</p>' for sentence in told]
    parts.append(f"<h2>How to read this</h2>{_HOW}</body></html>")
    path = folder / FILE
    with output_file(path) as file:
        file.write(("\n".join(part for part in parts if part) + "\n").encode())
    return path


def _head(report: Report) -> str:
    rates = "".join(f"<li>{escape(name)}: {rate / 1e9:.1f} · 10⁹</li>" for name, rate in report.rates.items())
    state = "" if report.complete else '<p class="warn">Interrupted: this is what was measured.</p>'
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>ragengine bench</title><style>{_STYLE}</style></head><body><h1>ragengine bench</h1>{state}"
        f"<p>{escape(machine_line(report.machine))}</p>"
        f"<p>Options: {escape(' '.join(report.command) or 'the defaults')}. "
        f"Load average when it started: {report.machine.get('load_average_at_start')}.</p><ul>{rates}</ul>"
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    kept = [place for place, _ in enumerate(columns) if place == 0 or any(row[place] for row in rows)]
    head = "".join(f"<th>{escape(columns[place])}</th>" for place in kept)
    body = "".join(
        "<tr>" + "".join(_cell(columns[place], row[place]) for place in kept) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><tr class="head">{head}</tr>{body}</table></div>'


def _cell(column: str, text: str) -> str:
    kind = ' class="text"' if column in _WIDE else ""
    return f'<td{kind} data-name="{escape(column)}">{escape(text)}</td>'


def _picture(path: Path) -> str:
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<p><img alt="{escape(path.stem)}" src="data:image/svg+xml;base64,{content}"></p>'
