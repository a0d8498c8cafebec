"""Encoding passages: ragengine beside the same encoder in torch, on the same texts in the same run."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import numpy as np
import torch
from transformers import BatchEncoding, DPRContextEncoder

from ragengine.arrays import FloatArray
from ragengine.bundle.bundle import Bundle
from ragengine.errors import InputError
from ragengine.retrieval.encoder import BATCH_TOKENS, TextEncoder
from ragengine_export.loading import load_model
from ragengine_export.tokenization import load_tokenizer

Texts: TypeAlias = list[tuple[str, str]]
_SCRIPT_BATCH = 16  # transformers' use_own_knowledge_dataset.py


@dataclass(frozen=True)
class EncodingResult:
    """Passages per second of each run of one way, and how far its vectors differ from the first way's."""

    name: str
    rates: list[float]
    largest_difference: float

    @property
    def rate(self) -> float:
        return median(self.rates)


def measure_encoding(
    bundle: Path, checkpoint: Path, texts: Texts, threads: int, repeats: int, say: Callable[[str], None]
) -> Iterator[list[EncodingResult]]:
    """Encode (title, text) pairs with ragengine and twice with torch in fp32, taking turns.

    Yields the results so far after every turn of the three, ``repeats`` times.

    torch encodes them as transformers' script for own indexes does (16 at a time, in file order, padded to
    the longest), and sorted by length in batches of as many tokens as ragengine's.  ``checkpoint``
    has the folders ``context_encoder`` and ``question_encoder_tokenizer``.
    """
    ways = _ways(bundle, checkpoint, threads)
    vectors: dict[str, FloatArray] = {}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for name, encode in ways.items():
        say(f"encoding, warm-up: {name}")
        encode(texts[: 4 * _SCRIPT_BATCH])
    for repeat in range(repeats):
        for name, encode in ways.items():
            say(f"encoding {repeat + 1}/{repeats}: {name}")
            start = time.perf_counter()
            vectors[name] = encode(texts)
            rates[name].append(len(texts) / (time.perf_counter() - start))
        first = vectors[next(iter(ways))]
        yield [
            EncodingResult(name, list(rates[name]), float(np.abs(vectors[name] - first).max(initial=0)))
            for name in ways
        ]


def _ways(bundle: Path, checkpoint: Path, threads: int) -> dict[str, Callable[[Texts], FloatArray]]:
    opened = Bundle.open(bundle)
    spec = opened.manifest.passage_encoder
    if spec is None:
        raise InputError(f"The bundle {bundle} has no passage encoder; export it with --context-encoder.")
    ours = TextEncoder.load(opened, spec, device="cpu", threads=threads)
    theirs = _TorchEncoder(checkpoint, threads)
    return {
        "ragengine fp32, sorted by length": ours.encode_by_length,
        "torch fp32, as transformers' script": theirs.in_file_order,
        "torch fp32, sorted by length": theirs.by_length,
    }


class _TorchEncoder:
    def __init__(self, checkpoint: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = load_model(DPRContextEncoder, str(checkpoint / "context_encoder"))
        self._tokenizer = load_tokenizer(str(checkpoint), "question_encoder_tokenizer")
        self._longest = self._model.config.max_position_embeddings

    def in_file_order(self, texts: Texts) -> FloatArray:
        """16 at a time, in file order."""
        rows = list(range(len(texts)))
        return self._encode(texts, [rows[i : i + _SCRIPT_BATCH] for i in range(0, len(rows), _SCRIPT_BATCH)])

    def by_length(self, texts: Texts) -> FloatArray:
        """Similar lengths together, as many tokens at a time as ours."""
        lengths = [len(ids) for ids in self._tokens(texts)["input_ids"]]
        batches: list[list[int]] = [[]]
        for row in sorted(range(len(texts)), key=lengths.__getitem__):
            if batches[-1] and (len(batches[-1]) + 1) * lengths[row] > BATCH_TOKENS:
                batches.append([])
            batches[-1].append(row)
        return self._encode(texts, batches)

    @torch.no_grad()
    def _encode(self, texts: Texts, batches: list[list[int]]) -> FloatArray:
        vectors = None
        for rows in batches:
            tokens = self._tokens([texts[row] for row in rows], padding="longest", return_tensors="pt")
            found = self._model(tokens["input_ids"], tokens["attention_mask"]).pooler_output.numpy()
            if vectors is None:
                vectors = np.empty((len(texts), found.shape[1]), np.float32)
            vectors[rows] = found
        assert vectors is not None
        return vectors

    def _tokens(self, texts: Texts, **options: Any) -> BatchEncoding:
        titles, bodies = ([pair[i] for pair in texts] for i in (0, 1))
        return self._tokenizer(titles, bodies, truncation=True, max_length=self._longest, **options)
