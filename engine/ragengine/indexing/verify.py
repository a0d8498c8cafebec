"""Checking an index that was built some time ago, or came from elsewhere."""

from pathlib import Path

from ragengine.retrieval.manifest import IndexManifest
from ragengine.retrieval.open_index import open_index
from ragengine.runtime.progress import Progress


def verify_index(index: str | Path, *, progress: Progress | None = None) -> IndexManifest:
    """Check an index by reading all of it, as ``ragengine index verify`` does.

    The hashes of its files, their counts, the norms of the vectors, that FAISS holds what is stored, and the
    recall of an approximate index, measured again.

    Args:
        index: the index folder, or a folder of shards.
        progress: called with (phase, done, total); phases are vectors and exact.

    Returns:
        The manifest of the index, which is whole.

    Raises:
        IndexFolderError: naming the first error that was found.
        DependencyError: faiss is not installed.
    """
    with open_index(index, verify="sha256") as opened:
        opened.verify(progress)
        return opened.manifest
