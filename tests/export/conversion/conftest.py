"""The checkpoints that TensorFlow's and Flax's classes wrote."""

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine_bench.checkpoints.tokenizers import train_generator_tokenizer, train_question_tokenizer
from tests.export.conversion.written.make import ARCHIVE


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All checkpoints, each with the tokenizers of its class; tests do not change them."""
    folder = tmp_path_factory.mktemp("written")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    random = np.random.default_rng(0)
    question = train_question_tokenizer(random, 250, None, folder / "trained_question")
    generator = train_generator_tokenizer(np.random.default_rng(0), 330, folder / "trained_generator")
    for checkpoint in folder.iterdir():
        if checkpoint.name.startswith("rag_"):
            question.save_pretrained(str(checkpoint / "question_encoder_tokenizer"))
            generator.save_pretrained(str(checkpoint / "generator_tokenizer"))
        elif not checkpoint.name.startswith("trained_"):
            config = json.loads((checkpoint / "config.json").read_text("utf-8"))
            is_generator = config.get("is_encoder_decoder", "decoder_layers" in config)
            (generator if is_generator else question).save_pretrained(str(checkpoint))
    return folder


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copies a checkpoint, to be changed."""
    return lambda name: Path(shutil.copytree(written / name, tmp_path / name))


def expected(folder: Path) -> dict[str, Any]:
    """What the class that wrote a folder computes."""
    return json.loads((folder / "expected.json").read_text("utf-8"))
