"""An answer in a terminal, and Figure 2 of the paper: the posterior of every document at every token."""

from rich.cells import set_cell_size
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ragengine.cli.console import OneLine, SafeConsole, cut_at_word, line
from ragengine.messages import shown
from ragengine.results import Answer

TITLE_WIDTH = 26


def print_answer(console: SafeConsole, answer: Answer, *, explain: bool) -> None:
    """Print the answer, its documents with prior and posterior, what it is copied from, and its time."""
    console.print(line(answer.question, "bold"))
    console.print(
        Text.assemble(
            "  ", (shown(answer.text.rstrip()) or "(no text)", "bold green"), f"   score {answer.score:.3f}"
        )
    )
    table = Table(box=None, padding=(0, 1), show_edge=False)
    for name in ("", "p(z|x)", "p(z|x,y)"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name), header_style="dim")
    table.add_column("document", header_style="dim")  # the one that gives way
    for number, document in enumerate(answer.documents, 1):
        text = OneLine((document.title, "bold"), (document.text, "dim"))
        table.add_row(str(number), f"{document.prior:.3f}", f"{document.posterior:.3f}", text)
    console.print(table)
    for citation in answer.citations:
        cited = shown(" ".join(citation.sentence.split()))
        console.print(Text(f"  [{citation.document + 1}] {cited}", style="dim"), soft_wrap=True)
    if answer.confidence is not None:
        said = f"confidence {answer.confidence:.2f}, answerability {answer.answerability:.2f}"
        console.print(Text(f"  {said}", style="dim"))
    if explain:
        print_posteriors(console, answer)
    total = sum(answer.timings_ms.values())
    stages = ", ".join(f"{name.replace('_', ' ')} {ms:.1f}" for name, ms in answer.timings_ms.items())
    console.print(Text(f"  {total:.1f} ms ({stages})", style="dim"), soft_wrap=True)
    for note in answer.notes:
        console.print(Text(f"  {note}", style="dim"))
    console.print()


def print_posteriors(console: SafeConsole, answer: Answer) -> None:
    """Print p(z | x, y_<=t) in percent: a row a document, a column a token, shaded if there are colours."""
    columns = [shown(token.strip(" ")) or "␣" for token in answer.tokens]
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
            title = cut_at_word(shown(document.title), TITLE_WIDTH - 1)
            shares = Text(f"{row + 1:3} {set_cell_size(title, TITLE_WIDTH)}", style="none")
            for token in range(start, end):
                posterior = float(answer.token_posteriors[token, row])
                shares.append(f"{posterior * 100:.0f}%".rjust(widths[token]), style=_shade(posterior))
                shares.append(" ")
            console.print(shares, no_wrap=True, crop=True)
        start = end


def _shade(posterior: float) -> Style:
    """From white for 0 to dark blue for 1, with a readable text colour."""
    red, green, blue = (round(255 - posterior * (255 - full)) for full in (8, 69, 148))
    return Style(color="white" if posterior > 0.5 else "black", bgcolor=f"#{red:02x}{green:02x}{blue:02x}")
