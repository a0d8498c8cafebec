"""The manifest of an index, and the names of its files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from ragengine.errors import IndexFolderError
from ragengine.storage import folders
from ragengine.storage.schema import Count, Hash, Line, Range, Setting, Size


@dataclass(frozen=True)
class TuningPoint:
    """Search settings that were tried, the recall@n_docs they gave and their cost a question.

    The cost counts bytes of code scanned and is computed, not timed, so that the same input gives the same
    settings on a busy machine.
    """

    search: dict[str, Setting]
    recall: float
    cost: Count


@dataclass(frozen=True)
class Tuning:
    """How the search settings of an index were found: ``queries`` questions from ``source``, for ``target``.

    ``points`` are the settings worth a look: for each ``nprobe`` every re-rank width that adds recall.
    """

    target: float
    n_docs: Annotated[int, Range(1, 1024)]
    queries: Count
    source: Literal["passages", "file"]
    points: list[TuningPoint] = field(default_factory=list)


FORMAT = "ragengine-index"


FORMAT_VERSION = 1


FAISS_FILE = "index.faiss"


VECTORS_FILE = "vectors.npy"


PASSAGES_FILE = "passages.sqlite"


QUERIES_FILE = "queries.npy"
"""The questions that the recall was measured with, where they were given: float32 [Q, E]."""


@dataclass(frozen=True)
class IndexEncoder:
    """The encoder an index is bound to: :attr:`ragengine.Bundle.index_encoder` of its bundle."""

    name: Line
    fingerprint: Hash
    kind: Literal["passage_encoder", "question_encoder"]


@dataclass(frozen=True)
class IndexManifest:
    """The content of an index's ``manifest.json``.

    ``search`` holds the FAISS run-time parameters and the re-rank width; ``recall`` is recall@n_docs as
    :class:`~ragengine.retrieval.recall.RecallTest` measures it, 1.0 for an exact index; ``max_norm`` is the
    largest Euclidean norm of the stored vectors.  ``reason`` says why the factory is this one, ``tuning`` how
    the search settings were found.  ``timings`` (seconds a phase, ``search_ms`` a question) are the only
    fields that differ when the same index is built twice.
    """

    dimension: Size
    metric: Literal["inner_product"]
    count: Count
    factory: Line
    search: dict[str, Setting]
    recall: Annotated[float, Range(0, 1)] | None
    max_norm: Annotated[float, Range(0, 1e30)]
    encoder: IndexEncoder
    created_by: Line
    created_from: dict[str, Any]
    files: dict[str, folders.FileEntry]
    reason: Line = ""
    seed: Count = 0
    tuning: Tuning | None = None
    timings: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> "IndexManifest":
        """Read the manifest of an index folder alone, without its files."""
        return folders.read_manifest(Path(path), cls, FORMAT, FORMAT_VERSION, IndexFolderError)
