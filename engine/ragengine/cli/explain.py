"""An answer in a terminal, and Figure 2 of the paper: the posterior of every document at every token."""

from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ragengine.results import Answer

TITLE_WIDTH = 26


def print_answer(console: Console, answer: Answer, *, explain: bool) -> None:
    """Print the answer, its documents with prior and posterior, and the time it took."""
    console.print(Text(answer.question, style="bold"))
    console.print(
        Text.assemble(
            "  ", (answer.text.strip() or "(no text)", "bold green"), f"   score {answer.score:.3f}"
        )
    )
    table = Table(box=None, padding=(0, 1), show_edge=False)
    for name in ("", "p(z|x)", "p(z|x,y)"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name), header_style="dim")
    table.add_column("document", no_wrap=True, min_width=8, header_style="dim")
    for number, document in enumerate(answer.documents, 1):
        text = Text.assemble((document.title, "bold"), "  ", (document.text, "dim"))
        table.add_row(str(number), f"{document.prior:.3f}", f"{document.posterior:.3f}", text)
    console.print(table)
    if answer.pruned:
        console.print(
            Text(f"  {answer.pruned_documents} not read, with a prior of {answer.pruned_mass:.3g}", "dim")
        )
    if explain:
        print_posteriors(console, answer)
    total = sum(answer.timings_ms.values())
    stages = ", ".join(f"{name.replace('_', ' ')} {ms:.1f}" for name, ms in answer.timings_ms.items())
    notes = f"   [{', '.join(answer.flags)}]" if answer.flags else ""
    console.print(Text(f"  {total:.1f} ms ({stages}){notes}", style="dim"))
    console.print()


def print_posteriors(console: Console, answer: Answer) -> None:
    """Print p(z | x, y_<=t) in percent: a row a document, a column a token, shaded if there are colours."""
    columns = [token.replace("\n", "⏎").strip() or "␣" for token in answer.tokens]
    widths = [max(4, len(column)) for column in columns]
    start = 0
    while start < len(columns):
        end, used = start, TITLE_WIDTH + 4
        while end < len(columns) and (end == start or used + widths[end] + 1 <= console.width):
            used += widths[end] + 1
            end += 1
        header = Text(" " * (TITLE_WIDTH + 4))
        for token in range(start, end):
            header.append(columns[token].rjust(widths[token]) + " ", style="bold")
        console.print(header, no_wrap=True, crop=True)
        for row, document in enumerate(answer.documents):
            line = Text(f"{row + 1:3} {document.title[: TITLE_WIDTH - 1]:<{TITLE_WIDTH}}", style="none")
            for token in range(start, end):
                posterior = float(answer.token_posteriors[token, row])
                line.append(f"{posterior * 100:.0f}%".rjust(widths[token]), style=_shade(posterior))
                line.append(" ")
            console.print(line, no_wrap=True, crop=True)
        start = end


def _shade(posterior: float) -> Style:
    """From white for 0 to dark blue for 1, with a readable text colour."""
    red, green, blue = (round(255 - posterior * (255 - full)) for full in (8, 69, 148))
    return Style(color="white" if posterior > 0.5 else "black", bgcolor=f"#{red:02x}{green:02x}{blue:02x}")
