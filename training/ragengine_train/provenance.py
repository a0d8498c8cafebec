"""What each result of a run was made with, so that results of other settings or files are not mixed in."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ragengine.storage.folders import sha256_of
from ragengine_train.choices import RESULTS
from ragengine_train.config import TrainConfig, listed

# Where a stage's result holds which network.
_PLACES = {
    "encoders": {"question_encoder": "question_encoder", "context_encoder": "context_encoder"},
    "generator": {"generator": "."},
    "joint": {
        "question_encoder": "question_encoder",
        "context_encoder": "context_encoder",
        "generator": "generator",
    },
}
# The networks that a result is made of.
_NETWORKS = {
    "encoders": ("question_encoder", "context_encoder"),
    "generator": ("generator",),
    "index": ("context_encoder",),
    "joint": ("question_encoder", "context_encoder", "generator"),
    "checkpoint": ("question_encoder", "context_encoder", "generator"),
}
# The fields of `[model]` that a result depends on; joint and checkpoint depend on all.
_ENCODERS = {
    "question_encoder",
    "context_encoder",
    "share_encoders",
    "pooling",
    "max_question_length",
    "max_passage_length",
}
_READING = {"title_sep", "doc_sep", "prefix", "max_combined_length", "answer_bos", "answer_prefix"}
_OF_MODEL = {
    "encoders": _ENCODERS,
    "generator": {"question_encoder", "generator", "max_question_length", "max_answer_length"} | _READING,
    "index": _ENCODERS - {"max_question_length"},
}
# Fields of TrainingArguments that change no weight.
_HARMLESS = {
    "logging_steps",
    "report_to",
    "run_name",
    "save_steps",
    "save_strategy",
    "save_total_limit",
    "use_cpu",
}

# Settings that earlier versions did not have, and what they did.
_LATER: dict[str, Any] = {
    "early_stopping_patience": 0,
    "dropout": {},
    "train_context_encoder": False,
    "reindex_every": 0,
    "reindex_delay": None,
    "dpr_weight": 0.0,
    "dpr_weight_end": None,
    "retrieval_only": False,
}


def places(config: TrainConfig) -> dict[str, dict[str, str]]:
    """By stage of the configuration, where its result holds the networks that it trains."""
    found = {stage: dict(where) for stage, where in _PLACES.items() if getattr(config, stage) is not None}
    if config.joint is not None and not config.joint.train_context_encoder:
        del found["joint"]["context_encoder"]
    return found


class Settings:
    """The settings and files that the results of ``config`` depend on; a file is hashed once."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self._hashes: dict[str, str] = {}

    def of(self, name: str) -> dict[str, Any]:
        """What a result depends on besides the results before it, as JSON values."""
        config = dataclasses.asdict(self.config)
        data, model, made_of = config["data"], config["model"], self.made_of(name)
        if name == "checkpoint":
            return {"model": model, "made_of": made_of}
        fields = _OF_MODEL.get(name, model.keys() - {"generation"})
        used = {"model": {key: value for key, value in model.items() if key in fields}, "made_of": made_of}
        starts = [str(model[network]) for network, stage in made_of.items() if stage == "start"]
        read = [data["passages"], *(start for start in dict.fromkeys(starts) if Path(start).exists())]
        if name == "index":
            return used | {"files": self.contents(read)}
        stage = {
            key: value for key, value in config[name].items() if key not in _LATER or value != _LATER[key]
        }
        stage.pop("profile_step", None)
        arguments = {key: value for key, value in stage["arguments"].items() if key not in _HARMLESS}
        read += listed(data["train"] if stage["train"] is None else stage["train"])
        return used | {
            "seed": config["seed"],
            "files": self.contents(read),
            name: stage | {"arguments": arguments},
        }

    def made_of(self, name: str) -> dict[str, str]:
        """Of each network in a result: the stage that trained it last before, or "start"."""
        made_of = dict.fromkeys(_NETWORKS[name], "start")
        for stage, networks in places(self.config).items():
            if RESULTS.index(stage) < RESULTS.index(name):
                made_of |= dict.fromkeys(made_of.keys() & networks.keys(), stage)
        return made_of

    def contents(self, paths: Sequence[str]) -> dict[str, str]:
        """A hash of each file or folder, so that changed contents are noticed."""
        for path in paths:
            if path not in self._hashes:
                self._hashes[path] = _hash(Path(path))
        return {path: self._hashes[path] for path in paths}


def changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two :meth:`Settings.of`, in words; of `[model]` only the fields of ``now``."""
    before, after = dict(_flat(was)), dict(_flat(now))
    keys = {key for key in before if not key.startswith("model.") or key in after} | after.keys()
    return [
        _describe_change(key, before.get(key), after.get(key))
        for key in sorted(keys)
        if before.get(key) != after.get(key)
    ]


def _describe_change(key: str, was: Any, now: Any) -> str:
    """One changed setting; of a file, that it changed."""
    file = key.removeprefix("files.")
    if file == key:
        return f"{key} was {was!r}, is {now!r}"
    if was is None or now is None:
        return f"{file} was {'not ' if was is None else ''}used"
    return f"{file} has changed"


def _flat(content: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings by dotted names; JSON's lists and tuples are the same."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _hash(path: Path) -> str:
    """The sha256 of a file; of a folder, that of the names and hashes of its files."""
    if not path.is_dir():
        return sha256_of(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listing = "".join(f"{file.relative_to(path)} {sha256_of(file)}\n" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()
