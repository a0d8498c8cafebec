"""The manifest of an index, and the names of its files."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from ragengine.confidence.corpus import fingerprint
from ragengine.errors import IndexFolderError
from ragengine.retrieval.history import flat_history
from ragengine.storage import folders
from ragengine.storage.foreign_files import checked_path
from ragengine.storage.schema import Count, Hash, Line, Range, Setting, Size

FORMAT = "ragengine-index"
FORMAT_VERSION = 2

FAISS_FILE = "index.faiss"
VECTORS_FILE = "vectors.npy"
PASSAGES_FILE = "passages.sqlite"
NUMBERED_FILE = "numbered.npy"
"""Which passages came without an id, where some did: uint8 [N], 1 for those whose id is a number."""
QUERIES_FILE = "queries.npy"
"""The questions that the recall was measured with, where they were given: float32 [Q, E]."""


@dataclass(frozen=True)
class TuningPoint:
    """Search settings that were tried, the recall@n_docs they gave and their cost a question.

    The cost is computed from the bytes that a search reads, and not timed, so that the same input gives the
    same settings on a busy machine.
    """

    search: dict[str, Setting]
    recall: float
    cost: Count


@dataclass(frozen=True)
class Tuning:
    """How the search settings of an index were found.

    target   the recall that was asked for
    n_docs   the number of documents that the recall is measured at
    queries  the number of questions it was measured with
    source   where they came from: stored passages, or a file
    points   the settings that were tried: for each ``nprobe`` every re-rank width that adds recall
    """

    target: float
    n_docs: Annotated[int, Range(1, 1024)]
    queries: Count
    source: Literal["passages", "file"]
    points: list[TuningPoint] = field(default_factory=list)


@dataclass(frozen=True)
class IndexEncoder:
    """The encoder an index is bound to: :attr:`ragengine.Bundle.index_encoder` of its bundle."""

    name: Line
    fingerprint: Hash
    kind: Literal["passage_encoder", "question_encoder"]


@dataclass(frozen=True)
class IndexManifest:
    """What an index is: the content of its ``manifest.json``.

    dimension     E, the number of components of a vector
    metric        how vectors are compared
    count         N, the number of passages
    factory       the FAISS factory string
    search        FAISS run-time parameters, such as ``nprobe``, and the re-rank width
    recall        recall@n_docs beside exact search, 1.0 for an exact index; None where it was not measured
    max_norm      the largest Euclidean norm of the stored vectors
    encoder       the encoder that the index is bound to
    created_by    the program that wrote it
    created_from  the names of its passages, vectors and FAISS file, and what was added, merged or deleted:
                  see :mod:`ragengine.retrieval.history`
    files         size and sha256 of each file of the folder
    reason        why the factory is this one
    seed          what the samples were drawn with
    tuning        how the search settings were found; None for an exact index
    timings       seconds a phase took (``add_s``), and milliseconds a search takes (``search_ms``); nothing
                  else differs when the same index is built twice
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

    @property
    def recall_reached(self) -> bool:
        """Whether the recall is the one that the search was tuned for; True for an exact index."""
        return self.tuning is None or self.recall is None or self.recall >= self.tuning.target

    @property
    def content(self) -> dict[str, Any]:
        """The JSON values of the file."""
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def read(cls, path: str | Path) -> "IndexManifest":
        """Read the manifest of an index folder; its other files are not looked at.

        Raises:
            IndexFolderError: there is no index, or its manifest cannot be used.
        """
        manifest = folders.read_manifest(
            checked_path(path, IndexFolderError),
            cls,
            FORMAT,
            FORMAT_VERSION,
            IndexFolderError,
            writer="ragengine index build PASSAGES INDEX --bundle BUNDLE",
        )
        return replace(manifest, created_from=flat_history(manifest.created_from))


def manifest_fingerprint(manifest: IndexManifest) -> str:
    """What identifies the content of an index and how it is searched, wherever and whenever it was built."""
    files = {name: entry.sha256 for name, entry in manifest.files.items()}
    return fingerprint({"files": files, "search": manifest.search, "encoder": manifest.encoder.fingerprint})
