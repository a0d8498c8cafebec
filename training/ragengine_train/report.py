"""`report.json` and the loss curves of a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ragengine.storage.atomic import output_file
from ragengine_train.trainer import Trained

REPORT = "report.json"
CURVES = "loss.png"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON; the file is whole or as it was.  Raises :class:`ragengine.errors.InputError`."""
    with output_file(path, parents=True) as file:
        file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read what :func:`write_json` wrote."""
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content


def losses(log_history: list[dict[str, float]]) -> tuple[list[float], list[float]]:
    """Steps and the mean losses since the step before, of a Trainer's log."""
    entries = [entry for entry in log_history if "loss" in entry]
    return [entry["step"] for entry in entries], [entry["loss"] for entry in entries]


def write_curves(stages: Mapping[str, Mapping[str, Any]], path: Path) -> bool:
    """Draw the loss of every stage over its steps; False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return False
    curves = {
        name: losses(stage["log_history"]) for name, stage in stages.items() if stage.get("log_history")
    }
    if not curves:
        return False
    figure = Figure(figsize=(4 * len(curves), 3), layout="constrained")
    plots = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (name, (steps, values)) in zip(plots, curves.items(), strict=True):
        axes.plot(steps, values)
        axes.set(title=name, xlabel="step", ylabel="loss")
        axes.grid(alpha=0.3)
    with output_file(path) as file:
        figure.savefig(file, format="png", dpi=120)
    return True


Report: TypeAlias = dict[str, Any]


def reported(folder: Path, trained: Trained, dev: dict[str, float]) -> Report:
    report: Report = {"seconds": trained.seconds, "log_history": trained.log_history, "dev": dev}
    write_json(folder / REPORT, report)
    return report
