"""One random checkpoint on both sides: Hugging Face, and ragengine by its public commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragengine import GenerationOptions, Generator, RagEngine
from ragengine.retrieval.build import build_index
from ragengine_export import export_checkpoint

from .checkpoints import Checkpoint, CheckpointSpec, write_checkpoint
from .corpus import random_questions
from .reference import Reference


@dataclass(frozen=True)
class Pair:
    """The oracle and the engine under test, on the same files."""

    spec: CheckpointSpec
    checkpoint: Checkpoint
    reference: Reference
    bundle: Path
    engine: RagEngine

    def questions(self, number: int, n_questions: int) -> list[str]:
        """Questions that depend on nothing but the checkpoint's seed and `number`."""
        return random_questions(np.random.default_rng([self.spec.seed, number, 4]), n_questions)

    def generator(self) -> Generator:
        return Generator.load(self.bundle, device="cpu")


def build_pair(spec: CheckpointSpec, folder: Path) -> Pair:
    """Write, export, index and load the checkpoint of `spec` under `folder`."""
    checkpoint = write_checkpoint(spec, folder)
    bundle, index = folder / "bundle", folder / "index"
    export_checkpoint(checkpoint.source, bundle, precision="fp32", check=False)
    build_index(checkpoint.passages_file, index, bundle=bundle, embeddings=checkpoint.embeddings_file)
    return Pair(
        spec=spec,
        checkpoint=checkpoint,
        reference=Reference(checkpoint),
        bundle=bundle,
        engine=RagEngine.load(bundle, index=index, device="cpu", threads=1 + spec.seed % 2),
    )


def full_options(**options: Any) -> GenerationOptions:
    """Options for the low-level `Generator`, which knows no question, so nothing is left to a default.

    Both sides must be told that nothing is forced: see `full_dict`.
    """
    return GenerationOptions(**full_dict(**options), eos_token_id=2, decoder_start_token_id=2)


def full_dict(**options: Any) -> dict[str, Any]:
    """The same options for HF, where an absent forced token means the checkpoint's own."""
    return {"forced_bos_token_id": None, "forced_eos_token_id": None, **options}
