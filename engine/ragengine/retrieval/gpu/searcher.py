"""Searching a copy of a FAISS index on a GPU."""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

from ragengine.arrays import FloatArray, HalfArray
from ragengine.errors import DeviceError
from ragengine.messages import log
from ragengine.retrieval.faiss_api import faiss_reason, faiss_threads, import_faiss, search_parameters
from ragengine.retrieval.gpu.placement import (
    TEMPORARY_BYTES,
    FaissBuild,
    IndexFacts,
    Placement,
    plan_placement,
)
from ragengine.retrieval.gpu.rescoring import DeviceVectors
from ragengine.retrieval.gpu.search_worker import Found
from ragengine.runtime.cuda_capture import CUDA_WORK
from ragengine.runtime.cuda_driver import CudaDevice, read_driver

Device: TypeAlias = Literal["auto", "cpu", "cuda"]


def refusal(placement: Placement) -> DeviceError:
    """The error where ``cuda`` is asked for and ``placement`` is the CPU."""
    return DeviceError(
        f"The device is cuda, but the index cannot be searched there: {placement.reason}; search it on "
        'the CPU with search_device="cpu", or where it can be with "auto".'
    )


def where(faiss_index: Any) -> Placement:
    """Where an index of unspecified device would be searched, and why; nothing is copied."""
    build = faiss_build()
    devices: tuple[CudaDevice, ...] = ()
    if build.gpu:
        try:
            devices = read_driver().devices
        except DeviceError as reason:
            return Placement("cpu", str(reason).rstrip("."))
    return plan_placement(index_facts(faiss_index), build, devices)


def device_vectors(vectors: HalfArray, placement: Placement) -> DeviceVectors | None:
    """A copy of the stored vectors on the device where they fit, else None: the scores are the same."""
    if not placement.vectors_bytes:
        return None
    try:
        return DeviceVectors(vectors, cuda_device=placement.device)
    except DeviceError as reason:
        log.info("Candidates are scored on the host: %s", reason)
        return None


def faiss_build() -> FaissBuild:
    """How the installed faiss was built."""
    faiss = import_faiss()
    options = faiss.get_compile_options().split()
    return FaissBuild(
        version=faiss.__version__,
        gpu=hasattr(faiss, "StandardGpuResources"),
        cuvs="NVIDIA_CUVS" in options,
    )


def index_facts(faiss_index: Any) -> IndexFacts:
    """The facts that decide where ``faiss_index`` can be searched."""
    faiss = import_faiss()
    index = faiss.downcast_index(faiss_index)
    transforms: list[str] = []
    while isinstance(index, faiss.IndexPreTransform):
        chain = (index.chain.at(number) for number in range(index.chain.size()))
        transforms += [type(faiss.downcast_VectorTransform(transform)).__name__ for transform in chain]
        index = faiss.downcast_index(index.index)
    metrics = {faiss.METRIC_INNER_PRODUCT: "inner_product", faiss.METRIC_L2: "l2"}
    facts: dict[str, Any] = {}
    if isinstance(index, faiss.IndexIVF):
        facts |= {
            "nlist": index.nlist,
            "nprobe": min(index.nprobe, index.nlist),
            "max_codes": index.max_codes,
            "coarse": _class_name(faiss.downcast_index(index.quantizer)),
            "by_residual": bool(index.by_residual),
        }
    if isinstance(index, faiss.IndexIVFPQ):
        facts |= {
            "sub_quantizers": index.pq.M,
            "bits": index.pq.nbits,
            "polysemous": index.polysemous_ht != 0,
        }
    if isinstance(index, faiss.IndexIVFScalarQuantizer | faiss.IndexScalarQuantizer):
        facts["scalar_type"] = _scalar_type(index.sq.qtype)
    return IndexFacts(
        kind=_class_name(index),
        count=index.ntotal,
        dimension=index.d,
        stored_dimension=faiss_index.d,
        metric=metrics.get(index.metric_type, "other"),  # type: ignore[arg-type]  # of the two, or other
        transforms=tuple(transforms),
        code_size=getattr(index, "code_size", 0),
        **facts,
    )


def _class_name(index: Any) -> str:
    """The class of an index; flat ones of either metric are one class."""
    name = type(index).__name__
    return "IndexFlat" if name in ("IndexFlatIP", "IndexFlatL2") else name


def _scalar_type(number: int) -> str:
    quantizer = import_faiss().ScalarQuantizer
    names = (name for name in dir(quantizer) if name.startswith("QT_") and name != "QT_count")
    return next((name for name in names if getattr(quantizer, name) == number), str(number))


class GpuSearcher:
    """A copy of an index on a GPU, for one thread.

    It has its own memory and stream (``StandardGpuResources``), so that it neither waits for the graphs nor
    takes their memory.
    """

    def __init__(self, faiss_index: Any, placement: Placement) -> None:
        """Copy ``faiss_index`` as ``placement`` says, which takes seconds for millions of vectors.

        Raises :class:`DeviceError` where faiss refuses, as it does when memory runs out.
        """
        faiss = import_faiss()
        self._cpu_index = faiss_index
        options, chosen = faiss.GpuClonerOptions(), placement.options
        options.useFloat16 = chosen.half_tables
        options.usePrecomputed = chosen.precomputed_tables
        options.indicesOptions = faiss.INDICES_32_BIT if chosen.short_ids else faiss.INDICES_64_BIT
        options.use_cuvs = chosen.use_cuvs
        with CUDA_WORK.shared(), _device_errors("was copied to the GPU"):
            self._resources = faiss.StandardGpuResources()
            self._resources.setTempMemory(TEMPORARY_BYTES)
            self._index = faiss.index_cpu_to_gpu(self._resources, placement.device, faiss_index, options)

    def search(self, questions: FloatArray, width: int, nprobe: int | None) -> Found:
        """Candidates, as :data:`~ragengine.retrieval.gpu.search_worker.CandidateSearch` says."""
        # The copy has the structure of the CPU's index, with its transforms, and takes the same parameters.
        parameters = search_parameters(self._cpu_index, nprobe)
        # only a rotation is left to the CPU
        with faiss_threads(1), CUDA_WORK.shared(), _device_errors("was searched"):
            scores, rows = self._index.search(questions, width, params=parameters)
        return scores, rows

    def __del__(self) -> None:
        with CUDA_WORK.shared():
            self.__dict__.clear()  # the copy, then what it lies in


@contextlib.contextmanager
def _device_errors(what: str) -> Iterator[None]:
    """Turn faiss's exceptions into a :class:`DeviceError`."""
    try:
        yield
    except (RuntimeError, MemoryError) as reason:
        raise DeviceError(
            f"faiss failed when the index {what}: {faiss_reason(reason)}; free memory on the device, or use "
            'device="cpu".'
        ) from reason
