"""Progress bars of the commands that write indexes or calibrate them."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import ProgressColumn, TaskID

    from ragengine.runtime.progress import Progress

_DESCRIPTIONS = {
    "passages": "reading passages",
    "vectors": "vectors",
    "train": "training",
    "add": "adding",
    "exact": "exact search",
    "tune": "tuning",
    "answers": "answering",
    "test answers": "answering test",
}


@contextlib.contextmanager
def progress_bars() -> Iterator["Progress"]:
    """One bar a phase on stderr, with what it has done, its rate, the time it took and the time left."""
    from rich import progress

    from ragengine.cli.console import SafeConsole

    columns: list[ProgressColumn | str] = [
        progress.TextColumn("{task.description:16}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    ]
    bars = progress.Progress(*columns, console=SafeConsole(stderr=True))
    with contextlib.ExitStack() as shown:
        tasks: dict[str, TaskID] = {}

        def report(phase: str, done: int, total: int | None) -> None:
            if not tasks:  # bars that are never begun would still print an empty line before an error
                shown.enter_context(bars)
            if phase not in tasks:
                tasks[phase] = bars.add_task(_DESCRIPTIONS[phase], total=total, completed=done, rate="")
                return
            speed = next(task.speed for task in bars.tasks if task.id == tasks[phase])
            rate = f"{speed:,.0f}/s" if speed and speed >= 1 else ""
            bars.update(tasks[phase], completed=done, total=total, rate=rate)

        yield report
