"""One random checkpoint on both sides: Hugging Face, and ragengine by its public commands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ragengine import GenerationOptions, Generator, RagEngine
from ragengine.generation.model import GeneratorModel
from ragengine.indexing.build import build_index
from ragengine_bench.checkpoints.corpus import random_questions
from ragengine_bench.checkpoints.rag_checkpoint import Checkpoint, CheckpointSpec, write_checkpoint
from ragengine_bench.parity.reference import Reference
from ragengine_bench.parity.sequence_reference import SequenceReference
from ragengine_export import export_checkpoint


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

    @cached_property
    def sequence_reference(self) -> SequenceReference:
        return SequenceReference(self.reference)

    @cached_property
    def seen(self) -> list[list[int]]:
        """Answers that HF gives to some questions: tokens that this checkpoint likes."""
        contexts = self.reference.contexts(self.questions(200, 2), 2)
        options = full_dict(num_beams=3, num_return_sequences=3, max_length=14, min_length=5)
        answers = self.reference.decode(*contexts, options)
        return [h.token_ids for answer in answers for h in answer.hypotheses if h.found]

    def generator(self) -> Generator:
        return Generator.load(self.bundle, device="cpu")


def build_pair(spec: CheckpointSpec, folder: Path, *, static: bool = False) -> Pair:
    """Write, export, index and load the checkpoint of `spec` under `folder`; `static`: a GPU's decoder."""
    checkpoint = write_checkpoint(spec, folder)
    bundle, index = folder / "bundle", folder / "index"
    export_checkpoint(checkpoint.source, bundle, precision="fp32", check=False)
    build_index(checkpoint.passages_file, index, bundle=bundle, embeddings=checkpoint.embeddings_file)
    engine = RagEngine.load(bundle, index=index, device="cpu", threads=1 + spec.seed % 2)
    if static:
        engine.generator._model = GeneratorModel(engine.bundle, device="cpu", threads=1, decoder="static")
    return Pair(
        spec=spec, checkpoint=checkpoint, reference=Reference(checkpoint), bundle=bundle, engine=engine
    )


def full_options(**options: Any) -> GenerationOptions:
    """Options for the low-level `Generator`, which knows no question, so nothing is left to a default.

    Both sides must be told that nothing is forced: see `full_dict`.
    """
    return GenerationOptions(**{"eos_token_id": 2, "decoder_start_token_id": 2} | full_dict(**options))


def full_dict(**options: Any) -> dict[str, Any]:
    """The same options for HF, where an absent forced token means the checkpoint's own."""
    return {"forced_bos_token_id": None, "forced_eos_token_id": None, **options}
