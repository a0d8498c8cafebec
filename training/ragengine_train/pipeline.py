"""The stages of a run in their order; a finished one is not run again, an unfinished one goes on."""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import transformers

from ragengine.errors import OptionsError
from ragengine.retrieval.build import build_index
from ragengine_train.checkpoint import Parts, write_checkpoint
from ragengine_train.config import STAGES, TrainConfig
from ragengine_train.data import Corpus
from ragengine_train.measure import export_parts, measure_answers, measure_retrieval
from ragengine_train.report import CURVES, REPORT, read_json, write_curves, write_json
from ragengine_train.stages import Report, train_encoders, train_generator, train_joint

# The results of a run in the order in which they are made; an index is made of what the encoders are.
_RESULTS = ("encoders", "generator", "index", "joint", "checkpoint")
_PACKAGES = ("ragengine", "torch", "transformers", "accelerate", "tokenizers")
# Where a stage's result holds which network.
_PLACES = {
    "encoders": {"question_encoder": "question_encoder", "context_encoder": "context_encoder"},
    "generator": {"generator": "."},
    "joint": {"question_encoder": "question_encoder", "generator": "generator"},
}


def train(config: TrainConfig, *, start: str | None = None) -> dict[str, Any]:
    """Run the stages of ``config`` and return what ``report.json`` says.

    What an earlier run finished stays, from the stage ``start`` on it is made again.  Raises
    :class:`ragengine.errors.RagEngineError` for whatever is wrong; then the finished stages are kept.
    """
    run = _Run(config, Corpus.read(config.data.passages))
    run.forget(start)
    with _quiet():
        run.encoders()
        run.generator()
        run.index()
        run.joint()
        return run.finish()


@dataclass
class _Run:
    """A run's folder: results by name, and in ``work`` what the stages need on the way."""

    config: TrainConfig
    corpus: Corpus

    @property
    def output(self) -> Path:
        return self.config.output

    @property
    def work(self) -> Path:
        return self.output / "work"

    @property
    def parts(self) -> Parts:
        """The networks as they are now: of the last finished stage that trained each, else the start."""
        model = self.config.model
        parts = Parts(model.question_encoder, str(model.context_encoder), model.generator)
        for stage, places in _PLACES.items():
            if getattr(self.config, stage) is not None and (self.output / stage).exists():
                folders = {name: str(self.output / stage / place) for name, place in places.items()}
                parts = dataclasses.replace(parts, **folders)
        return parts

    def forget(self, start: str | None) -> None:
        """Remove the results from ``start`` on, and refuse those that other settings made."""
        if start is not None:
            for name in _RESULTS[_RESULTS.index(start) :]:
                shutil.rmtree(self.output / name, ignore_errors=True)
                shutil.rmtree(self.work / name, ignore_errors=True)
        for stage in STAGES:
            self._check_settings(stage)

    def encoders(self) -> None:
        """DPR pre-training."""
        self._stage(
            "encoders", lambda work: train_encoders(self.config, self.corpus, work, self.output / "encoders")
        )

    def generator(self) -> None:
        """Warm-up on gold passages."""
        self._stage(
            "generator",
            lambda work: train_generator(
                self.config, self.corpus, self.parts, work, self.output / "generator"
            ),
        )

    def index(self) -> None:
        """The index that joint tuning searches and the model answers from; what both parts can do so far."""
        report = self.work / "index" / REPORT
        bundle = self.work / "index" / "bundle"
        if report.exists() and (self.output / "index").exists():
            return
        click.echo("index", err=True)
        started = time.perf_counter()
        export_parts(self.parts, self.config, self.work / "index" / "checkpoint", bundle)
        build_index(self.config.data.passages, self.output / "index", bundle=bundle)
        seconds = time.perf_counter() - started
        write_json(report, {"seconds": round(seconds, 1), "dev": self._measured(bundle)})

    def joint(self) -> None:
        """Joint tuning on the marginal likelihood."""
        self._stage(
            "joint",
            lambda work: train_joint(
                self.config, self.corpus, self.parts, self.output / "index", work, self.output / "joint"
            ),
        )

    def finish(self) -> dict[str, Any]:
        """The checkpoint, what it can do, the report and the curves."""
        checkpoint, report = self.output / "checkpoint", self.work / "checkpoint" / REPORT
        if not (checkpoint.exists() and report.exists()):
            if self.config.joint is None:  # measured already
                write_checkpoint(self.parts, self.config.model, checkpoint)
                dev = read_json(self.work / "index" / REPORT)["dev"]
            else:
                bundle = self.work / "checkpoint" / "bundle"
                export_parts(self.parts, self.config, checkpoint, bundle)
                dev = self._measured(bundle)
            write_json(report, {"dev": dev})
        return self._report()

    def _measured(self, bundle: Path) -> dict[str, Any]:
        """``retrieval`` over all dev questions, ``answers`` end to end over a sample."""
        if self.config.data.dev is None:
            return {}
        figures = {
            "retrieval": measure_retrieval(bundle, self.output / "index", self.config.data.dev),
            "answers": measure_answers(bundle, self.output / "index", self.config),
        }
        for name, measured in figures.items():
            click.echo(f"  dev {name}: " + ", ".join(f"{k} {v:.4g}" for k, v in measured.items()), err=True)
        return figures

    def _stage(self, name: str, run: Callable[[Path], Report]) -> None:
        """Run a stage that is asked for and not finished."""
        if getattr(self.config, name) is None:
            return
        if (self.output / name).exists():
            click.echo(f"{name}: finished before", err=True)
            return
        click.echo(name, err=True)
        work = self.work / name
        write_json(work / "settings.json", self._settings(name))
        report = run(work)
        click.echo(f"{name}: {report['seconds']:.0f} s {report.get('dev') or ''}", err=True)
        for checkpoint in work.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)

    def _settings(self, stage: str) -> dict[str, Any]:
        """What a stage's result depends on, besides the stages before it."""
        config = dataclasses.asdict(self.config)
        model = {key: value for key, value in config["model"].items() if key != "generation"}
        return {
            "seed": config["seed"],
            "data": config["data"] | {"dev": None, "dev_questions": 0},
            "model": model,
            stage: config[stage],
        }

    def _check_settings(self, stage: str) -> None:
        path = self.work / stage / "settings.json"
        if getattr(self.config, stage) is None or not path.exists():
            return
        was, now = _flat(read_json(path)), _flat(self._settings(stage))
        if changed := sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key)):
            first = changed[0]
            raise OptionsError(
                f"{self.output / stage} was trained with other settings ({', '.join(changed)}: {first} was "
                f"{was.get(first)!r}, is {now.get(first)!r}); make it again with --from {stage}, or --fresh."
            )

    def _report(self) -> dict[str, Any]:
        """`report.json`: each stage's log, seconds and figures, and the dev figures after each in a row."""
        stages = {
            stage: read_json(self.output / stage / REPORT)
            for stage in STAGES
            if getattr(self.config, stage) is not None
        }
        stages["index"] = read_json(self.work / "index" / REPORT)
        stages["checkpoint"] = read_json(self.work / "checkpoint" / REPORT)
        content = {
            "seed": self.config.seed,
            "packages": {name: version(name) for name in _PACKAGES},
            "seconds": round(sum(stage.get("seconds", 0.0) for stage in stages.values()), 1),
            "dev": {name: stage["dev"] for name, stage in stages.items() if stage.get("dev")},
            "stages": stages,
        }
        write_json(self.output / REPORT, content)
        write_curves(stages, self.output / CURVES)
        return content


def _flat(content: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Nested settings by dotted names; JSON's lists and tuples are the same."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return flat


def remove_run(output: Path) -> None:
    """Remove a run's results, and nothing else that may be in the folder."""
    for name in (*_RESULTS, "work"):
        shutil.rmtree(output / name, ignore_errors=True)
    for name in (REPORT, CURVES):
        (output / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of transformers for the milliseconds that loading a small part takes."""
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()
