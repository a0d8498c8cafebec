"""Where a FAISS index is searched, on a GPU or on the CPU, and why (docs/guides/gpu.md).

The limits are those of faiss 1.15's GPU code (``GpuCloner.cpp``, ``GpuIndexIVF*.cu``): an index that it would
refuse to copy, or search less exactly, is found here before anything is copied.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ragengine.runtime.cuda_driver import CudaDevice

MOST_SELECTED = 2048
"""Candidates a search, and lists probed, that faiss's GPU code can select."""
TEMPORARY_BYTES = 512 << 20
"""Memory that faiss keeps on the device for the intermediate results of its searches."""

_MOST_ROWS_32_BIT = 2**31 - 1
_CUVS_COMPUTE = 7.0
_LEFT_FREE = 2 << 30  # for the graphs, which are loaded after the index
_FLOAT, _HALF, _SHORT_ID, _LONG_ID = 4, 2, 4, 8
_LIST_ROWS = 32  # vectors that are stored interleaved
_CUVS_CHUNK_BITS = 128
# Codes and ids of a list are two allocations, each rounded up to 512 bytes, and a few pointers.
_LIST_BYTES = 2 * 512 + 4 * 8
_SCALAR_TYPES = {
    "QT_8bit", "QT_8bit_uniform", "QT_8bit_direct", "QT_4bit", "QT_4bit_uniform", "QT_6bit", "QT_fp16"
}  # fmt: skip
_SCALAR_TYPES_WITH_RANGES = {"QT_8bit", "QT_4bit"}  # a range for each dimension, in shared memory
_LISTED = {"IndexIVFFlat", "IndexIVFPQ", "IndexIVFScalarQuantizer"}


@dataclass(frozen=True)
class IndexFacts:
    """The facts that decide where an index can be searched; :func:`index_facts` reads them from one.

    ``kind`` is the class of the index behind its ``transforms``; ``dimension`` and ``code_size`` (bytes a
    vector) are that index's.  ``stored_dimension`` is that of the stored vectors.  ``coarse`` is the class
    of the coarse quantizer.
    """

    kind: str
    count: int
    dimension: int
    stored_dimension: int
    metric: Literal["inner_product", "l2", "other"] = "inner_product"
    transforms: tuple[str, ...] = ()
    code_size: int = 0
    nlist: int = 0
    nprobe: int = 1
    coarse: str = "IndexFlat"
    sub_quantizers: int = 0
    bits: int = 8
    by_residual: bool = True
    polysemous: bool = False
    max_codes: int = 0
    scalar_type: str = ""

    @property
    def listed(self) -> bool:
        """Whether there are inverted lists."""
        return self.nlist > 0


@dataclass(frozen=True)
class FaissBuild:
    """How this faiss was built."""

    version: str
    gpu: bool
    cuvs: bool = False


@dataclass(frozen=True)
class CloneOptions:
    """How faiss copies an index to a device: fields of ``GpuClonerOptions``.

    ``half_tables`` are lookup tables of 16-bit floats, ``short_ids`` ids of 32 bits.
    """

    half_tables: bool = False
    precomputed_tables: bool = False
    short_ids: bool = True
    use_cuvs: bool = False


@dataclass(frozen=True)
class Placement:
    """Where an index is searched, and the reason in words; ``bytes`` is the device memory that it takes.

    ``vectors_bytes`` is the memory of a copy of the stored vectors, which scores the candidates there; 0
    leaves them on the host.
    """

    kind: Literal["gpu", "gpu-cuvs", "cpu"]
    reason: str
    device: int = 0
    bytes: int = 0
    vectors_bytes: int = 0
    options: CloneOptions = field(default_factory=CloneOptions)

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU searches."""
        return self.kind != "cpu"

    def __str__(self) -> str:
        return f"{f'GPU {self.device}' if self.on_gpu else 'CPU'}: {self.reason}"


def plan_placement(index: IndexFacts, build: FaissBuild, devices: Sequence[CudaDevice]) -> Placement:
    """Decide where ``index`` is searched: on the GPU with most free memory where that is possible."""
    if not build.gpu:
        return no_gpu_build(build)
    if not devices:
        return _cpu("there is no CUDA device")
    device = max(devices, key=lambda d: d.free_bytes)
    unfit = _unfit(index)
    if unfit:
        return _cpu(unfit)
    native = _unfit_for_native(index, device)
    if native is None:
        return _with_memory(index, device, _native_options(index, device), "faiss's own GPU code")
    cuvs = _unfit_for_cuvs(index, build, device)
    if cuvs is None:
        options = CloneOptions(half_tables=True, short_ids=False, use_cuvs=True)
        return _with_memory(index, device, options, f"cuVS, since {native}")
    return _cpu(f"{native}, and {cuvs}")


def no_gpu_build(build: FaissBuild) -> Placement:
    """The placement of every index where faiss is a CPU build."""
    return _cpu(f"this faiss {build.version} has no GPU support")


def device_bytes(index: IndexFacts, options: CloneOptions) -> int:
    """Upper bound of the device memory of an index, in bytes, without the temporary memory of searches."""
    if not index.listed:
        return index.count * index.dimension * (_FLOAT if index.kind == "IndexFlat" else _HALF)
    ids = index.count * (_SHORT_ID if options.short_ids else _LONG_ID)
    centroids = index.nlist * index.dimension * _FLOAT
    lists = index.nlist * _LIST_BYTES
    if options.use_cuvs:
        chunks = -(-index.sub_quantizers * index.bits // _CUVS_CHUNK_BITS)
        codes = _padded_rows(index) * chunks * _CUVS_CHUNK_BITS // 8
        return ids + codes + lists + 3 * centroids + _codebook_bytes(index)  # as given, rotated, with norms
    if index.kind == "IndexIVFPQ":
        tables = _precomputed_bytes(index, options) if options.precomputed_tables else 0
        codebooks = 2 * _codebook_bytes(index)  # in two layouts
        return ids + index.count * index.code_size + lists + centroids + codebooks + tables
    return ids + _padded_rows(index) * index.code_size + lists + centroids


def _unfit(index: IndexFacts) -> str | None:
    """Why faiss has no GPU code for this index at all, neither its own nor cuVS's."""
    half_flat = index.kind == "IndexScalarQuantizer" and index.scalar_type == "QT_fp16"
    if index.kind not in {"IndexFlat", *_LISTED} and not half_flat:
        return f"faiss has no GPU code for {index.kind}"
    if index.metric == "other":
        return "faiss's GPU code supports inner products and L2 distances only"
    if not index.listed:
        return None
    if index.coarse != "IndexFlat":
        return f"the lists are found by {index.coarse}, which faiss has no GPU code for"
    if index.nprobe > MOST_SELECTED:
        return f"nprobe is {index.nprobe}, a GPU searches at most {MOST_SELECTED} lists"
    if index.max_codes:
        return f"max_codes is {index.max_codes}, which GPU search does not support"
    return None


def _unfit_for_native(index: IndexFacts, device: CudaDevice) -> str | None:
    """Why faiss's own GPU code cannot search this index."""
    if index.kind == "IndexIVFScalarQuantizer":
        if index.scalar_type not in _SCALAR_TYPES:
            return f"faiss's GPU code does not support the scalar quantiser {index.scalar_type}"
        limit = device.shared_bytes // (2 * _FLOAT)
        if index.scalar_type in _SCALAR_TYPES_WITH_RANGES and index.dimension >= limit:
            return (
                f"{index.scalar_type} of {index.dimension} dimensions does not fit the {device.shared_bytes} "
                f"bytes of shared memory, which hold fewer than {limit}"
            )
    if index.kind != "IndexIVFPQ":
        return None
    if index.bits != 8:
        return f"faiss's GPU code reads codes of 8 bits, these have {index.bits}"
    if index.sub_quantizers not in GPU_SUBQUANTIZERS:
        sizes = ", ".join(map(str, GPU_SUBQUANTIZERS))
        return f"faiss's GPU code takes {sizes} sub-quantisers, this index has {index.sub_quantizers}"
    needed = _lookup_bytes(index, _HALF)
    if needed > device.shared_bytes:
        return (
            f"lookup tables of {index.sub_quantizers} sub-quantisers take {needed} bytes even as 16-bit "
            f"floats, a block has {device.shared_bytes} of shared memory"
        )
    if not index.by_residual:
        return "faiss's GPU code encodes residuals, this index whole vectors"
    if index.polysemous:
        return "faiss's GPU code does not support polysemous codes"
    return None


def _unfit_for_cuvs(index: IndexFacts, build: FaissBuild, device: CudaDevice) -> str | None:
    """Why cuVS, which is tried after faiss's own GPU code, cannot search this index."""
    if not build.cuvs:
        return f"this faiss {build.version} is built without cuVS"
    if index.kind != "IndexIVFPQ":
        return f"faiss does not give {index.kind} to cuVS"
    if float(device.compute) < _CUVS_COMPUTE:
        return f"cuVS needs compute capability {_CUVS_COMPUTE}, {device.name} has {device.compute}"
    if not 4 <= index.bits <= 8:
        return f"cuVS reads codes of 4 to 8 bits, these have {index.bits}"
    if index.bits * index.sub_quantizers % 8:
        return f"cuVS reads codes of whole bytes, these have {index.bits * index.sub_quantizers} bits"
    if not index.by_residual:
        return "cuVS encodes residuals, this index whole vectors"
    if index.polysemous:
        return "cuVS does not support polysemous codes"
    return None


def _native_options(index: IndexFacts, device: CudaDevice) -> CloneOptions:
    """How faiss's own GPU code copies the index.

    Lookup tables have 16 bits: that halves the shared memory and doubles the blocks at once, and candidates
    are scored again anyway.  Tables of L2 distances are computed in advance where they fit easily.
    """
    half = index.kind == "IndexIVFPQ"
    short = index.count <= _MOST_ROWS_32_BIT
    options = CloneOptions(half_tables=half, short_ids=short)
    tables = CloneOptions(half_tables=half, short_ids=short, precomputed_tables=True)
    easily = device_bytes(index, tables) <= _room(device) // 2
    return tables if half and index.metric == "l2" and easily else options


def _with_memory(index: IndexFacts, device: CudaDevice, options: CloneOptions, by: str) -> Placement:
    """On the device if there is room, else on the CPU."""
    needed, room = device_bytes(index, options), _room(device)
    if needed > room:
        return _cpu(
            f"{_class_of(index)} needs {_gib(needed)} of device memory, {device.name} has {_gib(room)} for it"
            f" ({_gib(device.free_bytes)} free, {_gib(_LEFT_FREE)} stay for the graphs)"
        )
    vectors = index.count * index.stored_dimension * _HALF
    fit = needed + vectors <= room // 2  # they only save time; the rest is for larger batches
    return Placement(
        kind="gpu-cuvs" if options.use_cuvs else "gpu",
        reason=f"{_class_of(index)} by {by}, {_gib(needed)} of {_gib(room)} on {device.name}"
        + (", 16-bit lookup tables" if options.half_tables else "")
        + f"; {_gib(vectors)} of stored vectors {'fit, too' if fit else 'stay on the host'}",
        device=device.number,
        bytes=needed,
        vectors_bytes=vectors if fit else 0,
        options=options,
    )


def _room(device: CudaDevice) -> int:
    return max(0, device.free_bytes - TEMPORARY_BYTES - _LEFT_FREE)


def _padded_rows(index: IndexFacts) -> int:
    """Vectors with those that fill up the last group of each list, at most."""
    return index.count + (_LIST_ROWS - 1) * index.nlist


def _lookup_bytes(index: IndexFacts, width: int) -> int:
    """Shared memory that the lookup tables of one list and question take."""
    return int(index.sub_quantizers * 2**index.bits * width)


def _codebook_bytes(index: IndexFacts) -> int:
    return int(2**index.bits * index.dimension * _FLOAT)


def _precomputed_bytes(index: IndexFacts, options: CloneOptions) -> int:
    return index.nlist * _lookup_bytes(index, _HALF if options.half_tables else _FLOAT)


def _class_of(index: IndexFacts) -> str:
    return f"{' and '.join(index.transforms)} before {index.kind}" if index.transforms else index.kind


def _cpu(reason: str) -> Placement:
    return Placement("cpu", reason)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


GPU_SUBQUANTIZERS = (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96)
"""The PQ sub-quantisers a vector that faiss's native GPU code takes."""
