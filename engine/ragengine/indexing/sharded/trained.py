"""``training.json``: what the jobs that build the shards of one index share."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ragengine.confidence.corpus import fingerprint
from ragengine.errors import IndexFolderError
from ragengine.indexing.build_state import differences
from ragengine.indexing.partition import shard_bounds
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.manifest import IndexEncoder
from ragengine.storage import folders
from ragengine.storage.ownership import QUANTIZER, TRAINING
from ragengine.storage.schema import Count, Hash, Line, Size

FORMAT = "ragengine-training"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Training:
    """What was counted and learned from a whole corpus: the content of its ``training.json``.

    count         the number of passages of the whole
    dimension     E, the number of components of a vector
    factory       the FAISS factory string, and the ``reason`` for it
    seed          what the samples are drawn with
    encoder       the encoder that makes the vectors
    quantizer     hash of what FAISS learned, as in ``shards.json``
    inputs        what the shards have to be built from, by name
    created_by    the program that wrote it
    created_from  the names of passages and vectors
    files         size and sha256 of the FAISS index without vectors
    """

    count: Count
    dimension: Size
    factory: Line
    reason: Line
    seed: Count
    encoder: IndexEncoder
    quantizer: Hash
    inputs: dict[str, str]
    created_by: Line
    created_from: dict[str, Any]
    files: dict[str, folders.FileEntry]

    @classmethod
    def read(cls, path: Path) -> "Training":
        """Read ``training.json`` of a folder.

        Raises:
            IndexFolderError: there is none, or it cannot be used.
        """
        if path.is_dir() and not (path / TRAINING).exists():
            raise IndexFolderError(
                f"{path} has no {TRAINING}, so that nothing says what its shards share; train first "
                "(ragengine index build PASSAGES OUT --train-only)."
            )
        return folders.read_manifest(path, cls, FORMAT, FORMAT_VERSION, IndexFolderError, file_name=TRAINING)

    def write(self, folder: Path) -> None:
        """Write ``training.json``."""
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (folder / TRAINING).write_text(text, "utf-8")

    @property
    def fingerprint(self) -> str:
        """What identifies it: its shards name it."""
        return fingerprint(
            {"inputs": self.inputs, "count": self.count, "seed": self.seed, "quantizer": self.quantizer}
        )

    def read_quantizer(self, folder: Path) -> Any:
        """The FAISS index without vectors, in memory, once its hash was compared."""
        folders.check_files(folder, self.files, IndexFolderError, needed={QUANTIZER})
        return read_faiss(folder / QUANTIZER, mapped=False)

    def check_inputs(self, inputs: Mapping[str, str], folder: Path) -> None:
        """Raise :class:`IndexFolderError` unless a shard is built from what was trained on."""
        if differing := differences(self.inputs, inputs):
            raise IndexFolderError(
                f"The training in {folder} was of something else: {'; '.join(differing)}; build the shard "
                "from the same, or train again."
            )

    def history(self, number: int, shards: int) -> dict[str, Any]:
        """The ``created_from`` of shard ``number`` of ``shards``."""
        return {**self.created_from, "shard": f"{number}/{shards}", "training": self.fingerprint}

    def bounds(self, number: int, shards: int) -> tuple[int, int]:
        """The first row of shard ``number`` of ``shards``, and the row behind its last."""
        return shard_bounds(number, shards, self.count)
