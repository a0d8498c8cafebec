"""Which FAISS index suits how many vectors, and what building it needs of memory and disk."""

import math
from dataclasses import dataclass
from typing import Any, Final

from ragengine.retrieval.faiss_api import extract_ivf, has_plain_lists, import_faiss
from ragengine.retrieval.gpu.placement import GPU_SUBQUANTIZERS

FLAT_LIMIT = 50_000
"""Below this number of passages, exact search answers within milliseconds."""
_COMPONENTS_PER_BYTE = 4
_LISTS_PER_ROOT = 4

ROWS_AT_ONCE = 16384
TRAINING_VECTORS = 65536  # 256 for each of the 256 centroids of a sub-quantiser
TRAINING_PER_LIST = 40  # faiss warns below 39
TRANSFORM_VECTORS = 65536  # 85 for each of 768 dimensions, of which PCA takes the covariance
ROTATION_VECTORS = 32768

_PROCESS_BYTES = 400 << 20  # Python, numpy, faiss and onnxruntime, a batch that is encoded
_FLOAT = 4
_HALF = 2
_ID = 8
_ID_COPIES = 64  # bytes of a passage while its id is compared with all others


CHOSEN: Final = "chosen by the user"
"""The reason for a factory that somebody asked for."""


@dataclass(frozen=True)
class IndexPlan:
    """A FAISS factory string, and the reason for it in words."""

    factory: str
    reason: str


def plan_index(count: int, dimension: int) -> IndexPlan:
    """The automatic choice of a factory for ``count`` vectors of ``dimension`` components.

    Flat below 50,000 vectors.  Above, OPQ + IVF + PQ: a byte for every 4 components, at most 96 (104 bytes a
    vector with its id), and about 4·√N lists.  faiss's native GPU code takes every such index.
    """
    if count < FLAT_LIMIT:
        return IndexPlan("Flat", f"exact search is fast enough for fewer than {FLAT_LIMIT:,} passages")
    nlist = 2 ** round(math.log2(_LISTS_PER_ROOT * math.sqrt(count)))
    lists = f"{count:,} passages in {nlist} lists (about 4·√N)"
    sizes = [size for size in GPU_SUBQUANTIZERS if size * _COMPONENTS_PER_BYTE <= dimension]
    if not sizes:
        return IndexPlan(f"IVF{nlist},Flat", f"{lists}; {dimension} components are few enough to keep")
    size = sizes[-1]
    rotated = size * _COMPONENTS_PER_BYTE
    return IndexPlan(
        f"OPQ{size}_{rotated},IVF{nlist},PQ{size}",
        f"{lists}, {dimension} dimensions rotated to {rotated} and kept in {size} bytes beside an id of 8; "
        f"faiss's GPU code takes {size} sub-quantisers",
    )


def training_count(faiss_index: Any, count: int) -> int:
    """How many of ``count`` vectors a FAISS index is trained on."""
    inverted_lists = extract_ivf(faiss_index)
    lists = 0 if inverted_lists is None else inverted_lists.nlist
    return min(count, max(TRAINING_VECTORS, TRAINING_PER_LIST * lists))


def bytes_per_vector(faiss_index: Any) -> int:
    """What ``faiss_index`` keeps of each vector, in bytes, with its id and its links in a graph."""
    faiss = import_faiss()
    index = faiss.downcast_index(faiss_index)
    if isinstance(index, faiss.IndexPreTransform):
        return bytes_per_vector(index.index)
    if isinstance(index, faiss.IndexRefine):
        return bytes_per_vector(index.base_index) + bytes_per_vector(index.refine_index)
    if isinstance(index, faiss.IndexIVF):
        return int(index.code_size) + _ID
    if isinstance(index, faiss.IndexHNSW):
        # the links of the lowest level, and a vector's average share of the higher ones
        links = int(index.hnsw.nb_neighbors(0) * 1.1) + 1
        return bytes_per_vector(index.storage) + links * 4 + _ID + 4
    return int(getattr(index, "code_size", index.d * _FLOAT))


def memory_needed(faiss_index: Any, count: int, dimension: int) -> int:
    """An upper bound of the memory that building takes, in bytes.

    The process itself; blocks of 16384 vectors and their copies; then either training or filling, whichever
    takes more.  Training has the sample as the index wants it, behind its transforms, and what a rotation and
    the quantisers copy of 65536 vectors.  Filling has centroids, and the index: its own size where its lists
    are filled through a file of codes (``inverted_lists``), else three times that, as its arrays double when
    they grow.  Ids take 9 bytes a passage before, and their copies while they are compared.  So memory grows
    with ``count`` by the codes, and with its square root by the sample.  Stored vectors do not count: they
    are a file, read in blocks.  What encoding takes is counted where the vectors come from
    (``VectorSource.memory``).
    """
    blocks = 4 * ROWS_AT_ONCE * dimension * _FLOAT
    trained = 0 if faiss_index.is_trained else training_count(faiss_index, count)
    sample = trained * _trained_dimension(faiss_index) * _FLOAT
    copies = 4 * min(trained, TRANSFORM_VECTORS) * dimension * _FLOAT
    inverted_lists = extract_ivf(faiss_index)
    centroids = 0 if inverted_lists is None else 3 * inverted_lists.nlist * inverted_lists.d * _FLOAT
    held = (1 if has_plain_lists(faiss_index) else 3) * count * bytes_per_vector(faiss_index)
    return _PROCESS_BYTES + blocks + centroids + max(sample + copies, held, _ID_COPIES * count)


def _trained_dimension(faiss_index: Any) -> int:
    """The dimension of the vectors that an index is trained on, behind its transforms."""
    faiss = import_faiss()
    index = faiss.downcast_index(faiss_index)
    return int(index.index.d if isinstance(index, faiss.IndexPreTransform) else index.d)


def disk_needed(faiss_index: Any, count: int, dimension: int, passages_bytes: int) -> int:
    """An upper bound of the disk that building takes, in bytes.

    Texts, fp16 vectors, the FAISS index twice (the file of codes, or a checkpoint, stays until the next file
    is whole), and the trained index before it.  An index that is replaced stays until the new one is whole;
    it is not counted.
    """
    inverted_lists = extract_ivf(faiss_index)
    centroids = dimension if inverted_lists is None else inverted_lists.nlist + dimension
    trained = 2 * centroids * dimension * _FLOAT
    return passages_bytes + count * (dimension * _HALF + 2 * bytes_per_vector(faiss_index)) + trained
