"""The models that the steps of `python -m ragengine_bench.gpu` share: written once, kept in the work folder.

The checkpoint is one of :mod:`ragengine_bench.checkpoints.rag_checkpoint`, which the parity tests use too, so
that one checkpoint serves parity and speed: BART-large's shape and a BERT-base question encoder, weights at
the scale of trained ones, real tokenizers.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from ragengine.indexing.build import build_index
from ragengine_bench.checkpoints.corpus import WORDS, random_questions
from ragengine_bench.checkpoints.rag_checkpoint import (
    Checkpoint,
    CheckpointSpec,
    open_checkpoint,
    random_spec,
    write_checkpoint,
)
from ragengine_bench.gpu.plan import GpuPlan
from ragengine_bench.gpu.report import Recorder, Table
from ragengine_bench.harness.runs import Workload
from ragengine_bench.harness.tables import memory
from ragengine_bench.index.synthetic_vectors import Clusters
from ragengine_export import export_checkpoint

HalfOrFull = Literal["fp32", "fp16"]
PRECISIONS: tuple[HalfOrFull, ...] = ("fp16", "fp32")
SEED = 2000
_FULL: dict[str, Any] = {
    "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_heads": 16, "decoder_heads": 16,
    "encoder_ffn": 4096, "decoder_ffn": 4096, "positions": 1024, "vocab_size": 50265,
    "question_hidden_size": 768, "question_heads": 12, "question_layers": 12, "question_ffn": 3072,
    "max_combined_length": 160,
}  # fmt: skip
_TOY: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_heads": 2, "decoder_heads": 2,
    "encoder_ffn": 48, "decoder_ffn": 48, "positions": 96, "vocab_size": 700, "max_combined_length": 40,
}  # fmt: skip
_COMMON: dict[str, Any] = {
    "activation": "gelu", "scale_embedding": False, "tied": True, "projection_dim": 0,
    "forced_bos": False, "forced_eos": False, "longest_passage": 30,
}  # fmt: skip
_PASSAGES = {"full": 10_000, "toy": 200}
_QUESTIONS = 64


class Measured(Protocol):
    """A model whose speed is measured: its RAG checkpoint, exported in each precision."""

    @property
    def plan(self) -> GpuPlan: ...
    @property
    def source(self) -> Path: ...
    @property
    def vocabulary(self) -> int: ...
    def bundle(self, precision: HalfOrFull) -> Path: ...


@dataclass(frozen=True)
class Models:
    """What is written under ``plan.work``; every path is made when it is first used."""

    plan: GpuPlan

    @property
    def title(self) -> str:
        return "toy shape" if self.plan.toy else "BART-large shape"

    @property
    def workload(self) -> Workload:
        """One question: at full size 5 documents of 160 tokens, 4 beams, 20 tokens."""
        return Workload(1, 2, 24, 2, 6) if self.plan.toy else Workload(1, 5, 160, 4, 20)

    @property
    def vocabulary(self) -> int:
        return int((_TOY if self.plan.toy else _FULL)["vocab_size"])

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint of all steps but `parity-small`."""
        spec = random_spec(SEED, **_COMMON, **(_TOY if self.plan.toy else _FULL))
        return self.written(spec, f"{self.plan.size}-checkpoint")

    @property
    def source(self) -> Path:
        return self.checkpoint.source

    def written(self, spec: CheckpointSpec, name: str) -> Checkpoint:
        """The checkpoint of ``spec`` in the work folder; read again where it is whole."""
        folder = self.plan.work / name
        whole = folder / "whole"
        if not whole.exists():
            self.plan.say(f"writing {name}")
            write_checkpoint(spec, folder)
            whole.touch()
        return open_checkpoint(spec, folder)

    def bundle(self, precision: HalfOrFull) -> Path:
        """The checkpoint, exported."""
        return self.exported(self.source, f"{self.plan.size}-{precision}", precision)

    def exported(self, source: Path, name: str, precision: HalfOrFull) -> Path:
        """``source`` as a bundle in the work folder; a bundle that is there is whole."""
        path = self.plan.work / name
        if not path.exists():
            self.plan.say(f"exporting {name}")
            export_checkpoint(source, path, precision, check=False)
        return path

    @property
    def index(self) -> Path:
        """Vectors, and passages longer than a document may be: all are cut to the workload's length."""
        path, count = self.plan.work / f"{self.plan.size}-index", _PASSAGES[self.plan.size]
        if not path.exists():
            self.plan.say(f"building an index of {count:,} passages")
            dimension = int(self.checkpoint.spec.question_hidden_size)
            vectors = Clusters(count, dimension).draw(count, 0)
            embeddings = self.plan.work / "index-embeddings.npy"
            np.save(embeddings, vectors)
            passages = _long_passages(self.plan.work / "index-passages.jsonl", count, self.workload.source)
            bundle = self.bundle("fp16")
            build_index(
                passages, path, bundle=bundle, embeddings=embeddings, factory="Flat", device="cpu",
                threads=self.plan.threads,
            )  # fmt: skip
        return path

    @property
    def questions(self) -> list[str]:
        """Random questions, the same in every step."""
        return random_questions(np.random.default_rng(SEED), _QUESTIONS)


def _long_passages(path: Path, count: int, words: int) -> Path:
    """A JSONL file of ``count`` passages of ``words`` words each."""
    random = np.random.default_rng(SEED)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            text = " ".join(WORDS[place] for place in random.integers(0, len(WORDS), words))
            row = {"id": str(number), "title": f"passage {number}", "text": text}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def write_models(plan: GpuPlan, recorder: Recorder) -> None:
    """Step `models`: everything above, so that later steps find it."""
    models = Models(plan)
    table = Table(f"{models.title}, random weights", ["what", "size"])
    recorder.step.tables.append(table)
    made: dict[str, Callable[[], Path]] = {"checkpoint": lambda: models.checkpoint.source}
    made |= {f"bundle {precision}": partial(models.bundle, precision) for precision in PRECISIONS}
    made["index"] = lambda: models.index
    for name, make in made.items():
        folder = make()
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        table.add(name, memory(size))
        recorder.save()
