"""What a run gives back: `report.json`, the loss curves and the result of the Python call."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragengine.storage.atomic import output_file
from ragengine_train.json_files import write_json
from ragengine_train.trainer import Trained

REPORT = "report.json"
CURVES = "loss.png"
LAST_INDEX = "checkpoint_index"  # of a passage encoder that joint tuning has trained


@dataclass(frozen=True)
class StageResult:
    """One stage of a run.

    Attributes:
        seconds: seconds of training, of all runs that worked on it together.
        log_history: what transformers' ``Trainer`` logged; losses are means since the entry before.
    """

    seconds: float
    log_history: list[dict[str, float]]

    @property
    def losses(self) -> list[tuple[int, float]]:
        """(step, loss) of every entry that has a loss."""
        return [(int(entry["step"]), entry["loss"]) for entry in self.log_history if "loss" in entry]


@dataclass(frozen=True)
class TrainResult:
    """What a run has made.

    Attributes:
        checkpoint: an ordinary RAG checkpoint with tokenizers, and ``context_encoder`` in it.
        index: the index of the passages that the checkpoint answers from.
        report: `report.json`, with all that is here, the seed and the versions of packages.
        seconds: seconds of all stages and the index, of all runs together.
        dev: figures on the dev questions by the result that has them; empty without dev questions.
            ``generator``: ``n``, ``exact_match_gold_passage``; ``index`` and ``checkpoint``: the figures of
            `ragengine eval` under ``retrieval`` (all questions) and ``answers`` (a sample).
        stages: the stages that the configuration has, by name.
    """

    checkpoint: Path
    index: Path
    report: Path
    seconds: float
    dev: dict[str, dict[str, Any]]
    stages: dict[str, StageResult]


def train_result(output: Path, content: Mapping[str, Any]) -> TrainResult:
    """The result of the run in ``output`` whose `report.json` has this content."""
    stages = {
        name: StageResult(stage["seconds"], stage["log_history"])
        for name, stage in content["stages"].items()
        if "log_history" in stage
    }
    return TrainResult(
        checkpoint=output / "checkpoint",
        index=output / content.get("index", "index"),
        report=output / REPORT,
        seconds=content["seconds"],
        dev=content["dev"],
        stages=stages,
    )


def write_stage_report(folder: Path, trained: Trained, dev: Mapping[str, float]) -> None:
    """Write the `report.json` of a finished stage."""
    content = {"seconds": trained.seconds, "log_history": trained.log_history, "dev": dev}
    write_json(folder / REPORT, content)


def write_curves(stages: Mapping[str, StageResult], path: Path) -> None:
    """Draw the loss of every stage over its steps; nothing where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return
    drawn = {name: stage for name, stage in stages.items() if stage.losses}
    if not drawn:
        return
    figure = Figure(figsize=(4 * len(drawn), 3), layout="constrained")
    plots = figure.subplots(1, len(drawn), squeeze=False)[0]
    for axes, (name, stage) in zip(plots, drawn.items(), strict=True):
        axes.plot([step for step, _ in stage.losses], [loss for _, loss in stage.losses])
        axes.set(title=name, xlabel="step", ylabel="loss")
        axes.grid(alpha=0.3)
    with output_file(path) as file:
        figure.savefig(file, format="png", dpi=120)
