"""An index of the passages with an encoder that is in training, as torch runs it on its device."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from transformers import DPRContextEncoder

from ragengine.arrays import FloatArray
from ragengine.indexing.plan import plan_index
from ragengine.indexing.revision import DEFAULT_RECALL
from ragengine.indexing.vector_sources import PendingPassages, VectorSource
from ragengine.indexing.writer import IndexWriter, new_manifest
from ragengine.retrieval.manifest import IndexEncoder
from ragengine.version import __version__
from ragengine_export import encoders
from ragengine_train.batching import pad
from ragengine_train.checkpoint import load_encoder, load_encoder_tokenizer, vector_size
from ragengine_train.config import TrainConfig
from ragengine_train.data import TrainingPassages
from ragengine_train.encoders import encode, passage_tokens

_ROWS_AT_ONCE = 4096


def corpus_encoding(
    source: Path, index: Path, config: TrainConfig, corpus: TrainingPassages, device: torch.device
) -> Callable[[Callable[[], None]], None]:
    """Load a passage encoder; return what encodes the passages with it and writes an index of them.

    The index is what `ragengine index build` would choose, and bound to this encoder.  Loading is apart
    because transformers changes settings of the whole process while it loads.

    Args:
        source: the folder of the encoder.
        index: the folder to write; nothing is done where it is there.  What a killed run has written of it
            is kept.
        config: of the run.
        corpus: its passages.
        device: where it is encoded.

    Returns:
        A function that calls its argument after each part of the work.
    """
    network = load_encoder(str(source), DPRContextEncoder, config.model.pooling).to(device).eval()
    tokenizer = load_encoder_tokenizer(str(source))
    bound = IndexEncoder(
        source.name, encoders.load_encoder(str(source), "passage").fingerprint, "passage_encoder"
    )
    threads = torch.get_num_threads()

    def blocks(pending: PendingPassages) -> Iterator[FloatArray]:
        for block in pending.blocks(_ROWS_AT_ONCE):
            tokens = passage_tokens(block, network, tokenizer, config.model.max_passage_length)
            yield encode(network, tokens, pad(tokenizer))

    source_of_vectors = VectorSource("encoder in training", blocks)

    def make(check: Callable[[], None]) -> None:
        if not index.exists():
            _write_index(
                index, source_of_vectors, bound, vector_size(network), config, corpus, threads, check
            )

    return make


def _write_index(
    index: Path,
    vectors: VectorSource,
    bound: IndexEncoder,
    dimension: int,
    config: TrainConfig,
    corpus: TrainingPassages,
    threads: int,
    check: Callable[[], None],
) -> None:
    """Write the index; ``check`` is called after each block."""
    plan = plan_index(corpus.indexed, dimension)
    settings = {"command": "reindex", "encoder": bound.fingerprint, "ragengine": __version__}

    def progress(phase: str, done: int, total: int | None) -> None:
        check()

    with IndexWriter.open(index, settings, resume=True, threads=threads, progress=progress) as writer:
        if not writer.finished:
            writer.write_passages(corpus.passages[: corpus.indexed])
            writer.write_vectors(vectors, dimension)
            writer.write_faiss(plan.factory, config.seed)
            created_from = {"passages": Path(config.data.passages).name, "vectors": vectors.name}
            writer.finish(
                new_manifest(bound, dimension, plan, config.seed, created_from), None, DEFAULT_RECALL
            )
