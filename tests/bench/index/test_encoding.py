"""Encoding passages: torch and ragengine read the same checkpoint, and give the same vectors."""

import shutil
from pathlib import Path

from ragengine_bench.index.encoding import measure_encoding
from ragengine_export import export_checkpoint
from tests.support.models import save_bart, save_dpr


def test_every_way_gives_the_same_vectors(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    encoder = save_dpr(checkpoint / "context_encoder", context=True)
    shutil.copytree(encoder, checkpoint / "question_encoder_tokenizer")
    export_checkpoint(
        None,
        tmp_path / "bundle",
        question_encoder=save_dpr(tmp_path / "question"),
        context_encoder=encoder,
        generator=save_bart(tmp_path / "bart"),
        check=False,
    )
    texts = [(f"title {row}", "some words " * (row % 5 + 1)) for row in range(20)]
    *_, last = measure_encoding(tmp_path / "bundle", checkpoint, texts, 1, 1, lambda _: None)
    assert len(last) == 3
    assert max(way.largest_difference for way in last) < 1e-5
