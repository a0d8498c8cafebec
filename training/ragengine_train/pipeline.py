"""The stages of a run in their order; a finished one is not run again, an unfinished one goes on."""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import transformers

from ragengine.durable import explained, held_folder
from ragengine.errors import InputError, OptionsError
from ragengine.folders import sha256_of
from ragengine.retrieval.build import build_index
from ragengine.schema import told
from ragengine_train import preflight
from ragengine_train.checkpoint import Parts, write_checkpoint
from ragengine_train.config import STAGES, TrainConfig, listed
from ragengine_train.data import Corpus
from ragengine_train.folders import remove
from ragengine_train.measure import export_parts, measure_answers, measure_retrieval
from ragengine_train.report import CURVES, REPORT, read_json, write_curves, write_json
from ragengine_train.stages import Report, train_encoders, train_generator, train_joint

# The results of a run in the order in which they are made; an index is made of what the encoders are.
_RESULTS = ("encoders", "generator", "index", "joint", "checkpoint")
_SETTINGS = "settings.json"
_DEV = "dev.json"
_PACKAGES = ("ragengine", "torch", "transformers", "accelerate", "tokenizers")
# Where a stage's result holds which network.
_PLACES = {
    "encoders": {"question_encoder": "question_encoder", "context_encoder": "context_encoder"},
    "generator": {"generator": "."},
    "joint": {"question_encoder": "question_encoder", "generator": "generator"},
}


# Which fields of `[model]` a result depends on; joint and checkpoint: on all.
_ENCODERS = {
    "question_encoder",
    "context_encoder",
    "share_encoders",
    "max_question_length",
    "max_passage_length",
}
_READING = {"title_sep", "doc_sep", "prefix", "max_combined_length", "answer_bos", "answer_prefix"}
_OF_MODEL = {
    "encoders": _ENCODERS,
    "generator": {"question_encoder", "generator", "max_question_length", "max_answer_length"} | _READING,
    "index": _ENCODERS - {"max_question_length"},
}


def train(config: TrainConfig, *, start: str | None = None, fresh: bool = False) -> dict[str, Any]:
    """Run the stages of ``config`` and return what ``report.json`` says.

    What an earlier run finished stays; from ``start`` on it is made again, with ``fresh`` all of it.
    Raises :class:`ragengine.errors.RagEngineError` for whatever is wrong; then the finished stages are kept.
    """
    with _held(config.output), _quiet():
        run = _Run(config, Corpus.read(config.data.passages))
        kept = () if fresh else _RESULTS[: _RESULTS.index(start or "checkpoint")]
        run.check_settings(kept)
        if fresh or start or not (config.output / "checkpoint").exists():
            preflight.check(config, run.corpus, run.parts_of(kept))
        if fresh:
            remove_run(config.output)
        elif start is not None:
            run.remove_from(start)
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
    _hashes: dict[str, str] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        return self.config.output

    @property
    def work(self) -> Path:
        return self.output / "work"

    @property
    def parts(self) -> Parts:
        """The networks as they are now."""
        return self.parts_of(_RESULTS)

    def parts_of(self, results: Sequence[str]) -> Parts:
        """The networks of the last finished stage of ``results`` that trained each, else the start."""
        model = self.config.model
        parts = Parts(model.question_encoder, str(model.context_encoder), model.generator)
        for stage, places in _PLACES.items():
            asked = stage in results and getattr(self.config, stage) is not None
            if asked and (self.output / stage).exists():
                folders = {name: str(self.output / stage / place) for name, place in places.items()}
                parts = dataclasses.replace(parts, **folders)
        return parts

    def check_settings(self, results: Sequence[str]) -> None:
        """Refuse results that other settings made."""
        for name in results:
            self._check_settings(name)

    def remove_from(self, start: str) -> None:
        """Remove the results from ``start`` on."""
        for name in _RESULTS[_RESULTS.index(start) :]:
            self._remove(name)

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
            self._measured("index")
            return
        self._remove_after("index")
        write_json(self.work / "index" / _SETTINGS, self._settings("index"))
        click.echo("index", err=True)
        started = time.perf_counter()
        export_parts(self.parts, self.config, self.work / "index" / "checkpoint", bundle)
        build_index(self.config.data.passages, self.output / "index", bundle=bundle)
        write_json(report, {"seconds": round(time.perf_counter() - started, 1)})
        self._measured("index")

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
        checkpoint, settings = self.output / "checkpoint", self.work / "checkpoint" / _SETTINGS
        as_asked = checkpoint.exists() and settings.exists() and not self._changed("checkpoint")
        if not as_asked:  # it is cheap to make
            self._remove("checkpoint")
            if self.config.joint is None:  # measured already
                write_checkpoint(self.parts, self.config.model, checkpoint)
            else:
                export_parts(self.parts, self.config, checkpoint, self.work / "checkpoint" / "bundle")
            write_json(settings, self._settings("checkpoint"))
        return self._report()

    def _measured(self, name: str) -> dict[str, Any]:
        """What the networks of a result can do on the dev questions.

        ``retrieval`` over all of them, ``answers`` end to end over a sample; measured once, and again when
        the questions or the settings of the answers are others.
        """
        data, model = self.config.data, self.config.model
        if data.dev is None:
            return {}
        path, bundle = self.work / name / _DEV, self.work / name / "bundle"
        settings = {
            "files": self._contents([data.dev]),
            "dev_questions": data.dev_questions,
            "max_answer_length": model.max_answer_length,
            "generation": model.generation,
        }
        if path.exists() and (known := read_json(path))["settings"] == settings:
            return dict(known["figures"])
        figures = {
            "retrieval": measure_retrieval(bundle, self.output / "index", data.dev),
            "answers": measure_answers(bundle, self.output / "index", self.config),
        }
        for part, measured in figures.items():
            click.echo(f"  dev {part}: " + ", ".join(f"{k} {v:.4g}" for k, v in measured.items()), err=True)
        write_json(path, {"settings": settings, "figures": figures})
        return figures

    def _stage(self, name: str, run: Callable[[Path], Report]) -> None:
        """Run a stage that is asked for and not finished."""
        if getattr(self.config, name) is None:
            return
        if (self.output / name).exists():
            click.echo(f"{name}: finished before", err=True)
            return
        self._remove_after(name)
        click.echo(name, err=True)
        work = self.work / name
        write_json(work / _SETTINGS, self._settings(name))
        report = run(work)
        click.echo(f"{name}: {report['seconds']:.0f} s {report.get('dev') or ''}", err=True)
        for checkpoint in work.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)

    def _remove(self, name: str) -> None:
        """Remove a result and what was needed for it."""
        remove(self.output / name)
        remove(self.work / name)

    def _remove_after(self, name: str) -> None:
        """Remove the results that were made of another ``name`` than the one that is made now."""
        for later in _RESULTS[_RESULTS.index(name) + 1 :]:
            if later != "generator":  # it is made of no encoder's weights
                self._remove(later)

    def _settings(self, name: str) -> dict[str, Any]:
        """What a result depends on, besides the results before it."""
        config = dataclasses.asdict(self.config)
        data, model = config["data"], config["model"]
        if name == "checkpoint":
            return {"model": model}
        fields = _OF_MODEL.get(name, model.keys() - {"generation"})
        used = {"model": {key: value for key, value in model.items() if key in fields}}
        if name == "index":
            return used | {"files": self._contents([data["passages"]])}
        stage = config[name]
        trained_on = listed(data["train"] if stage["train"] is None else stage["train"])
        return used | {
            "seed": config["seed"],
            "files": self._contents([data["passages"], *trained_on]),
            name: stage,
        }

    def _contents(self, paths: Sequence[str]) -> dict[str, str]:
        """The sha256 of files, so that other data under the same name are noticed."""
        for path in paths:
            if path not in self._hashes:
                self._hashes[path] = sha256_of(Path(path))
        return {path: self._hashes[path] for path in paths}

    def _changed(self, name: str) -> dict[str, tuple[Any, Any]]:
        """Settings that a result was made with and is not asked for with, as (was, is)."""
        was, now = _flat(read_json(self.work / name / _SETTINGS)), _flat(self._settings(name))
        keys = {key for key in was if not key.startswith("model.") or key in now} | now.keys()
        return {key: (was.get(key), now.get(key)) for key in sorted(keys) if was.get(key) != now.get(key)}

    def _check_settings(self, name: str) -> None:
        if name in STAGES and getattr(self.config, name) is None:
            return
        if (self.work / name / _SETTINGS).exists() and (changed := self._changed(name)):
            said = [_told_change(key, *values) for key, values in changed.items()]
            raise OptionsError(
                f"{self.output / name} was made with others ({told(said)}); "
                f"make it again with --from {name}, or --fresh."
            )

    def _report(self) -> dict[str, Any]:
        """`report.json`: each stage's log, seconds and figures, and the dev figures after each in a row."""
        stages = {
            stage: read_json(self.output / stage / REPORT)
            for stage in STAGES
            if getattr(self.config, stage) is not None
        }
        stages["index"] = read_json(self.work / "index" / REPORT) | {"dev": self._measured("index")}
        last = "index" if self.config.joint is None else "checkpoint"
        stages["checkpoint"] = {"dev": self._measured(last)}
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


def _told_change(key: str, was: Any, now: Any) -> str:
    """One changed setting; of a file, that it changed."""
    file = key.removeprefix("files.")
    if file == key:
        return f"{key} was {was!r}, is {now!r}"
    if was is None or now is None:
        return f"{file} was {'not ' if was is None else ''}used"
    return f"{file} has changed"


def _flat(content: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Nested settings by dotted names; JSON's lists and tuples are the same."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return flat


def remove_run(output: Path) -> None:
    """Remove a run's results, and nothing else that may be in the folder."""
    for name in (*_RESULTS, "work"):
        remove(output / name)
    for name in (REPORT, CURVES):
        (output / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _held(output: Path) -> Iterator[None]:
    """Make the folder of a run and keep other processes out of it.

    Raises :class:`InputError` where that fails, and where the Trainer cannot write.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with held_folder(output):
            yield
    except OSError as reason:
        raise InputError(f"{output} cannot be written: {explained(reason)}.") from reason


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
