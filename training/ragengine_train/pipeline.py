"""The stages of a run in their order; a finished one is not run again, an unfinished one goes on."""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ragengine.bundle.bundle import Bundle
from ragengine.errors import MemoryLimitError, OptionsError
from ragengine.messages import one_line
from ragengine.retrieval.manifest import IndexManifest
from ragengine.storage.schema import join_errors
from ragengine.version import __version__
from ragengine_export.quiet import without_bars
from ragengine_train import preflight, processes
from ragengine_train.checkpoint import Parts, write_checkpoint
from ragengine_train.choices import RESULTS, ResultName
from ragengine_train.config import STAGES, TrainConfig
from ragengine_train.config_file import read_config
from ragengine_train.corpus_index import index_corpus
from ragengine_train.data import TrainingPassages
from ragengine_train.data_convert import ConvertReport
from ragengine_train.dev_metrics import export_parts, measure_answers, measure_retrieval
from ragengine_train.encoders import train_encoders
from ragengine_train.folders import remove
from ragengine_train.foreign_data import as_jsonl
from ragengine_train.generator import train_generator
from ragengine_train.joint import train_joint
from ragengine_train.json_files import read_json, write_json
from ragengine_train.live_retriever import OpenIndex, RagengineIndex
from ragengine_train.processes import first, together
from ragengine_train.progress import Progress, TrainProgress, silent
from ragengine_train.provenance import Settings, changes, places
from ragengine_train.report import (
    CURVES,
    LAST_INDEX,
    REPORT,
    TrainResult,
    train_result,
    write_curves,
)
from ragengine_train.run_context import hold, use_threads, writing

QUESTIONS = "questions"  # in a run's folder: the questions of other formats, as JSONL
_SETTINGS = "settings.json"
_DEV = "dev.json"
_PACKAGES = ("torch", "transformers", "accelerate", "tokenizers")


def train(
    config: str | Path | TrainConfig,
    *,
    start: ResultName | None = None,
    fresh: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
    open_index: OpenIndex | None = None,
) -> TrainResult:
    """Train a RAG model as a configuration says, which is what `ragengine train` does.

    Results of an earlier run stay, and an unfinished stage goes on where it was killed.  In each of several
    processes that `torchrun` or `accelerate launch` has started, the same call takes a part of the work; the
    first process writes, reports and returns the same result as the others.

    Args:
        config: the TOML file, or what :func:`read_config` has read.
        start: make this result and what follows again; what comes before stays (``--from``).
        fresh: start over: whatever an earlier run left in the output is removed.
        threads: threads torch may use; all cores where None.
        progress: called with every :class:`TrainProgress`.
        open_index: opens what `[joint]` searches for the index folder and ``n_docs``; by default the index,
            mapped into this process.

    Returns:
        Where checkpoint, index and report are, and the figures of the report.

    Raises:
        OptionsError: the configuration or a setting is wrong, or results were made with other settings.
        PassagesError: a file of passages or questions cannot be read or holds no usable entry.
        ExportError: a network or tokenizer cannot be loaded or is of another architecture.
        InputError: the output folder cannot be written.
        MemoryLimitError: a batch does not fit into the GPU's memory.
        OtherProcessError: another one of several processes has failed, and says why.
    """
    if fresh and start is not None:
        raise OptionsError(f"fresh makes everything again and start={start!r} does not; give one of them.")
    if start is not None and start not in RESULTS:
        raise OptionsError(f"start is {start!r}; it must be one of {', '.join(RESULTS)}.")
    if threads is not None and threads < 1:
        raise OptionsError(f"threads is {threads}; it must be at least 1.")
    with processes.joined(), contextlib.ExitStack() as held:
        settings = together(lambda: config if isinstance(config, TrainConfig) else read_config(config))
        tell = progress if progress is not None and processes.is_first() else silent
        held.enter_context(use_threads(threads))
        held.enter_context(without_bars())
        held.enter_context(writing(settings.output))
        first(lambda: hold(settings.output, held))
        corpus = together(lambda: TrainingPassages.read(settings.data.passages))
        settings = first(lambda: _with_jsonl(settings, corpus, tell))
        run = _Run(settings, corpus, tell, open_index or RagengineIndex)
        first(lambda: run.prepare(start, fresh))
        run.encoders()
        run.generator()
        run.index()
        run.joint()
        return run.finish()


@dataclass
class _Run:
    """A run's folder: results by name, and in ``work`` what the stages need on the way."""

    config: TrainConfig
    corpus: TrainingPassages
    progress: Progress
    open_index: OpenIndex

    def __post_init__(self) -> None:
        self.settings = Settings(self.config)

    @property
    def output(self) -> Path:
        return self.config.output

    @property
    def work(self) -> Path:
        return self.output / "work"

    @property
    def last_index(self) -> Path:
        """The index that the checkpoint answers from."""
        learned = self.config.joint is not None and self.config.joint.train_context_encoder
        return self.output / (LAST_INDEX if learned else "index")

    @property
    def parts(self) -> Parts:
        """The networks as they are now."""
        return self.parts_of(RESULTS)

    def parts_of(self, results: Sequence[str]) -> Parts:
        """The networks of the last finished stage of ``results`` that trained each, else the start."""
        model = self.config.model
        parts = Parts(model.question_encoder, str(model.context_encoder), model.generator)
        for stage, networks in places(self.config).items():
            if stage in results and (self.output / stage).exists():
                folders = {name: str(self.output / stage / place) for name, place in networks.items()}
                parts = dataclasses.replace(parts, **folders)
        return parts

    def prepare(self, start: ResultName | None, fresh: bool) -> None:
        """Refuse what cannot be trained and results that other settings made; remove what is made again."""
        kept = () if fresh else RESULTS[: RESULTS.index(start or "checkpoint")]
        for name in kept:
            self._check_settings(name)
        if fresh or start or not (self.output / "checkpoint").exists():
            preflight.check(self.config, self.corpus, self.parts_of(kept))
        if fresh:
            _remove_run(self.output)
        elif start is not None:
            for name in RESULTS[RESULTS.index(start) :]:
                self._remove(name)

    def encoders(self) -> None:
        """DPR pre-training."""
        self._stage(
            "encoders",
            lambda work: train_encoders(
                self.config, self.corpus, work, self.output / "encoders", self.progress
            ),
        )

    def generator(self) -> None:
        """Warm-up on gold passages."""
        self._stage(
            "generator",
            lambda work: train_generator(
                self.config, self.corpus, self.parts, work, self.output / "generator", self.progress
            ),
        )

    def index(self) -> None:
        """The index that joint tuning searches and the model answers from, and the dev figures before it."""
        if first(self._begin_index):
            started = time.perf_counter()
            bundle = self.work / "index" / "bundle"
            first(lambda: export_parts(self.parts, self.config, self.work / "index" / "checkpoint", bundle))
            index_corpus(self.corpus, self.config.data.passages, bundle, self.output / "index")
            seconds = {"seconds": round(time.perf_counter() - started, 1)}
            first(lambda: write_json(self.work / "index" / REPORT, seconds))
        self._measured("index")

    def _begin_index(self) -> bool:
        """Whether there is no index yet; then what was made of an earlier one is removed."""
        if (self.work / "index" / REPORT).exists() and (self.output / "index").exists():
            return False
        self._remove_after("index")
        write_json(self.work / "index" / _SETTINGS, self.settings.of("index"))
        self._say("index", "index")
        return True

    def joint(self) -> None:
        """Joint tuning on the marginal likelihood."""
        self._stage(
            "joint",
            lambda work: train_joint(
                self.config,
                self.corpus,
                self.parts,
                self.output / "index",
                work,
                self.output / "joint",
                self.progress,
                self.open_index,
            ),
        )

    def finish(self) -> TrainResult:
        """Write the checkpoint, measure it, and write the report and the curves."""
        if not first(self._has_checkpoint):  # it is cheap to make
            bundle = self.work / "checkpoint" / "bundle"
            first(lambda: self._write_checkpoint(bundle))
            if first(lambda: self._needs_index(bundle)):
                index_corpus(self.corpus, self.config.data.passages, bundle, self.last_index)
            made_with = self.work / "checkpoint" / _SETTINGS
            first(lambda: write_json(made_with, self.settings.of("checkpoint")))
        dev = {name: self._measured(name) for name in ("index", "checkpoint") if self._has_bundle(name)}
        return first(lambda: self._report(dev))

    def _has_checkpoint(self) -> bool:
        settings = self.work / "checkpoint" / _SETTINGS
        whole = (self.output / "checkpoint").exists() and settings.exists()
        return whole and not self._changes("checkpoint")

    def _write_checkpoint(self, bundle: Path) -> None:
        self._remove("checkpoint")
        checkpoint = self.output / "checkpoint"
        if self._has_bundle("checkpoint"):
            export_parts(self.parts, self.config, checkpoint, bundle)
        else:  # measured already
            write_checkpoint(self.parts, self.config.model, checkpoint)

    def _has_bundle(self, name: str) -> bool:
        """Whether a result is measured with a bundle of its own; without `[joint]` the two have the same."""
        return name == "index" or self.config.joint is not None

    def _needs_index(self, bundle: Path) -> bool:
        """Whether the encoder that joint tuning has made has no index of the passages yet."""
        if self.config.joint is None or not self.config.joint.train_context_encoder:
            return False
        fingerprint = Bundle.open(bundle, verify="size").index_encoder.fingerprint
        if (
            self.last_index.exists()
            and IndexManifest.read(self.last_index).encoder.fingerprint == fingerprint
        ):
            return False
        self._say("checkpoint", "checkpoint: index of the passages")
        return True

    def _measured(self, name: str) -> dict[str, Any]:
        """The figures of a result on the dev questions; empty where there are none.

        ``retrieval`` over all of them, ``answers`` end to end over a sample; measured once, and again when
        the questions or the settings of the answers have changed.
        """
        data, model = self.config.data, self.config.model
        if data.dev is None:
            return {}
        path, bundle = self.work / name / _DEV, self.work / name / "bundle"
        settings = {
            "files": self.settings.contents([data.dev]),
            "dev_questions": data.dev_questions,
            "max_answer_length": model.max_answer_length,
            "generation": model.generation,
        }
        known: dict[str, Any] | None = first(lambda: _kept(path, settings))
        if known is not None:
            return known
        index = self.output / "index" if name == "index" else self.last_index
        figures = {
            "retrieval": measure_retrieval(bundle, index, data.dev),
            "answers": measure_answers(bundle, index, self.config),
        }
        for part, measured in figures.items():
            listing = ", ".join(f"{key} {value:.4g}" for key, value in measured.items())
            self._say(name, f"  dev {part}: {listing}")
        first(lambda: write_json(path, {"settings": settings, "figures": figures}))
        return figures

    def _stage(self, name: str, run: Callable[[Path], None]) -> None:
        """Run a stage that the configuration has and that is not finished."""
        if getattr(self.config, name) is None or not first(lambda: self._begin(name)):
            return
        work = self.work / name
        try:
            run(work)
        except torch.OutOfMemoryError as reason:
            raise MemoryLimitError(
                f"{name}: {one_line(reason)}; lower per_device_train_batch_size, raise "
                f"gradient_accumulation_steps as much, and begin again with --from {name}."
            ) from reason
        first(lambda: self._end(name))

    def _begin(self, name: str) -> bool:
        """Whether a stage is to be run; then what was made of an earlier one is removed."""
        if (self.output / name).exists():
            self._say(name, f"{name}: finished before")
            return False
        self._remove_after(name)
        self._say(name, name)
        write_json(self.work / name / _SETTINGS, self.settings.of(name))
        return True

    def _end(self, name: str) -> None:
        report = read_json(self.output / name / REPORT)
        self._say(name, f"{name}: {report['seconds']:.0f} s {report['dev'] or ''}")
        if getattr(self.config, name).arguments.get("eval_strategy", "no") != "no":
            return  # whoever evaluates them wants to compare them
        for checkpoint in (self.work / name).glob("checkpoint-*"):
            shutil.rmtree(checkpoint)

    def _remove(self, name: str) -> None:
        """Remove a result and what was needed for it."""
        remove(self.output / name)
        remove(self.work / name)

    def _remove_after(self, name: str) -> None:
        """Remove the results that were made of an earlier ``name``."""
        for later in RESULTS[RESULTS.index(name) + 1 :]:
            if later != "generator":  # it is made of no encoder's weights
                self._remove(later)

    def _check_settings(self, name: str) -> None:
        if name in STAGES and getattr(self.config, name) is None:
            return
        if found := self._changes(name):
            raise OptionsError(
                f"{self.output / name} was made with other settings ({join_errors(found)}); "
                f"make it again with --from {name}, or --fresh."
            )

    def _changes(self, name: str) -> list[str]:
        """What has changed since a result was made, in words."""
        path = self.work / name / _SETTINGS
        return changes(read_json(path), self.settings.of(name)) if path.exists() else []

    def _say(self, stage: str, message: str) -> None:
        self.progress(TrainProgress(stage, message))

    def _report(self, dev: dict[str, dict[str, Any]]) -> TrainResult:
        """Write `report.json`: log, seconds and figures of each stage, and all dev figures together."""
        stages = {
            stage: read_json(self.output / stage / REPORT)
            for stage in STAGES
            if getattr(self.config, stage) is not None
        }
        stages["index"] = read_json(self.work / "index" / REPORT) | {"dev": dev["index"]}
        stages["checkpoint"] = {"dev": dev.get("checkpoint", dev["index"])}
        content = {
            "seed": self.config.seed,
            "index": self.last_index.name,
            "packages": {"ragengine": __version__} | {name: version(name) for name in _PACKAGES},
            "seconds": round(sum(stage.get("seconds", 0.0) for stage in stages.values()), 1),
            "dev": {name: stage["dev"] for name, stage in stages.items() if stage.get("dev")},
            "stages": stages,
        }
        write_json(self.output / REPORT, content)
        result = train_result(self.output, content)
        write_curves(result.stages, self.output / CURVES)
        return result


def _with_jsonl(config: TrainConfig, corpus: TrainingPassages, progress: Progress) -> TrainConfig:
    """The configuration with questions in our format, those of other projects converted in `questions`."""

    def tell(report: ConvertReport) -> None:
        for line in report.lines():
            progress(TrainProgress("data", line))

    return as_jsonl(config, corpus, config.output / QUESTIONS, tell)


def _kept(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The figures in ``path``, where they were measured with these settings."""
    if not path.exists() or (known := read_json(path))["settings"] != settings:
        return None
    return dict(known["figures"])


def _remove_run(output: Path) -> None:
    """Remove a run's results, and nothing else that may be in the folder."""
    for name in (*RESULTS, LAST_INDEX, "work"):
        remove(output / name)
    for name in (REPORT, CURVES):
        (output / name).unlink(missing_ok=True)
