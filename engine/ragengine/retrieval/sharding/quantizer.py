"""What the FAISS indexes of all shards share: centroids, rotation and codebooks, without any vector."""

import hashlib
from pathlib import Path
from typing import Any

from ragengine.errors import InputError
from ragengine.retrieval.faiss_api import extract_ivf, import_faiss
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.structure import can_share


def empty_copy(path: Path) -> Any:
    """The index at ``path`` without its vectors: centroids, rotation and codebooks alone.

    Raises:
        InputError: it is of a kind whose parts do not find together what it finds.
    """
    faiss = import_faiss()
    index = read_faiss(path, mapped=True)
    check_can_divide(index, str(path))
    inverted_lists = extract_ivf(index)
    if inverted_lists is not None:
        lists = faiss.ArrayInvertedLists(inverted_lists.nlist, inverted_lists.code_size)
        inverted_lists.replace_invlists(lists, True)
        lists.this.disown()
        inverted_lists.nprobe = 1  # a setting, not something learned
        inverted_lists.ntotal = 0
    else:
        index = read_faiss(path, mapped=False)
        index.reset()
    index.ntotal = 0
    return index


def check_can_divide(index: Any, name: str) -> None:
    """Raise :class:`InputError` where parts of a FAISS index do not find together what it finds."""
    if not can_share(index):
        kind = type(import_faiss().downcast_index(index)).__name__
        raise InputError(
            f"The FAISS index {name} is {kind}, whose vectors cannot be divided among shards (a graph, "
            "refinement or fast scan); build one of Flat, or IVF with PQ, SQ or Flat."
        )


def quantizer_hash(empty: Any) -> str:
    """The sha256 of what FAISS learned, from an index of :func:`empty_copy`: of all its parts the same."""
    faiss = import_faiss()
    digest = hashlib.sha256()

    def write(data: Any) -> None:
        digest.update(bytes(data))

    faiss.write_index(empty, faiss.PyCallbackIOWriter(write))
    return digest.hexdigest()


def flat_codes(index: Any) -> Any:
    """The part of an index without lists that holds its codes, behind transforms."""
    faiss = import_faiss()
    index = faiss.downcast_index(index)
    return flat_codes(index.index) if isinstance(index, faiss.IndexPreTransform) else index
