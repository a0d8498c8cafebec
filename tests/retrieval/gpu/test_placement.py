"""The planner: every decision about where an index is searched, and its reason."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from click.testing import CliRunner

from ragengine.cli.main import cli
from ragengine.errors import DeviceError
from ragengine.indexing.plan import plan_index
from ragengine.retrieval.gpu.placement import (
    GPU_SUBQUANTIZERS,
    TEMPORARY_BYTES,
    CloneOptions,
    FaissBuild,
    IndexFacts,
    _unfit_for_cuvs,
    device_bytes,
    plan_placement,
)
from ragengine.retrieval.gpu.searcher import faiss_build, index_facts, where
from ragengine.retrieval.index import PassageIndex
from ragengine.runtime.cuda_driver import CudaDevice
from tests.support.bundles import random_vectors

GIB = 2**30
NATIVE = FaissBuild("1.15.1", gpu=True)
CUVS = FaissBuild("1.15.1", gpu=True, cuvs=True)
A100 = CudaDevice(0, "A100", "8.0", total_bytes=40 * GIB, free_bytes=38 * GIB, shared_bytes=48 << 10)
PASCAL = CudaDevice(0, "P100", "6.0", total_bytes=16 * GIB, free_bytes=15 * GIB, shared_bytes=48 << 10)
WIDE = 32


def facts(factory: str, dimension: int = WIDE, **changes: Any) -> IndexFacts:
    """Facts of a real FAISS index, empty and untrained, with some of them changed."""
    index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    return dataclasses.replace(index_facts(index), **changes)


def wikipedia(**changes: Any) -> IndexFacts:
    """The index that ragengine builds of 21 million passages of 768 components."""
    factory = plan_index(21_000_000, 768).factory
    assert factory == "OPQ96_384,IVF16384,PQ96"
    return facts(factory, 768, count=21_000_000, nprobe=64, **changes)


# --- what is read of an index -----------------------------------------------------------------------


def test_facts_are_those_of_the_index() -> None:
    index = faiss.index_factory(WIDE, "OPQ8_16,IVF12,PQ8x4", faiss.METRIC_INNER_PRODUCT)
    faiss.downcast_VectorTransform(index.chain.at(0)).niter = 2
    vectors = random_vectors(1500, WIDE)
    index.train(vectors)
    index.add(vectors)
    faiss.ParameterSpace().set_index_parameter(index, "nprobe", 5)
    assert index_facts(index) == IndexFacts(
        kind="IndexIVFPQ",
        count=1500,
        dimension=16,
        stored_dimension=WIDE,
        transforms=("OPQMatrix",),
        code_size=4,
        nlist=12,
        nprobe=5,
        sub_quantizers=8,
        bits=4,
    )


@pytest.mark.parametrize(
    ("factory", "changes"),
    [
        ("Flat", {"kind": "IndexFlat", "code_size": 128}),
        ("IVF16,Flat", {"kind": "IndexIVFFlat", "nlist": 16, "by_residual": False}),
        ("IVF16_HNSW8,Flat", {"coarse": "IndexHNSWFlat"}),
        ("IVF16,SQ6", {"kind": "IndexIVFScalarQuantizer", "scalar_type": "QT_6bit", "code_size": 24}),
        ("IVF16,SQfp16", {"scalar_type": "QT_fp16"}),
        ("IVF16,PQ8x4fs", {"kind": "IndexIVFPQFastScan"}),
        ("PCA8,L2norm,IVF16,Flat", {"transforms": ("PCAMatrix", "NormalizationTransform"), "dimension": 8}),
        ("IVF16,PQ8,RFlat", {"kind": "IndexRefineFlat", "nlist": 0}),
        ("HNSW16", {"kind": "IndexHNSWFlat", "nlist": 0}),
    ],
)
def test_facts_of_every_kind(factory: str, changes: dict[str, Any]) -> None:
    found = facts(factory)
    assert {name: getattr(found, name) for name in changes} == changes


def test_facts_of_other_metrics_and_settings() -> None:
    index = faiss.index_factory(WIDE, "IVF16,PQ8", faiss.METRIC_L2)
    index.max_codes, index.polysemous_ht, index.by_residual, index.nprobe = 7, 3, False, 99
    found = index_facts(index)
    assert (found.metric, found.max_codes, found.polysemous, found.by_residual) == ("l2", 7, True, False)
    assert found.nprobe == 16  # there are no more
    assert index_facts(faiss.IndexFlat(4, faiss.METRIC_L1)).metric == "other"


# --- the decision -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factory", "by"),
    [
        ("Flat", "IndexFlat by faiss's own GPU code"),
        ("IVF16,Flat", "IndexIVFFlat by faiss's own GPU code"),
        ("IVF16,SQ8", "IndexIVFScalarQuantizer by faiss's own GPU code"),
        ("IVF16,SQ6", "IndexIVFScalarQuantizer by"),
        ("SQfp16", "IndexScalarQuantizer by"),
        ("OPQ8_16,IVF16,PQ8", "OPQMatrix before IndexIVFPQ by faiss's own GPU code"),
        ("PCA8,L2norm,IVF16,Flat", "PCAMatrix and NormalizationTransform before IndexIVFFlat"),
    ],
)
@pytest.mark.parametrize("build", [NATIVE, CUVS])
def test_searched_by_faisss_own_gpu_code(factory: str, by: str, build: FaissBuild) -> None:
    placement = plan_placement(facts(factory, count=1000), build, [A100])
    assert placement.kind == "gpu"
    assert placement.reason.startswith(by)
    assert not placement.options.use_cuvs
    assert placement.options.half_tables == ("IndexIVFPQ" in by)


def test_every_size_of_codes_that_the_gpu_takes_and_no_other() -> None:
    for size in range(1, 129):
        index = IndexFacts(
            "IndexIVFPQ", 1000, 8 * size, 8 * size, code_size=size, nlist=16, sub_quantizers=size
        )
        placement = plan_placement(index, NATIVE, [A100])
        assert placement.on_gpu == (size in GPU_SUBQUANTIZERS), placement
    assert "takes 1, 2, 3, 4, 8, 12" in placement.reason
    assert "this index has 128, and this faiss 1.15.1 is built without cuVS" in placement.reason


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (facts("HNSW16"), "faiss has no GPU code for IndexHNSWFlat"),
        (facts("PQ8"), "faiss has no GPU code for IndexPQ"),
        (facts("SQ8"), "faiss has no GPU code for IndexScalarQuantizer"),
        (facts("IVF16,PQ8,RFlat"), "faiss has no GPU code for IndexRefineFlat"),
        (facts("IVF16,PQ8x4fs"), "faiss has no GPU code for IndexIVFPQFastScan"),
        (facts("IVF16,RaBitQ"), "faiss has no GPU code for IndexIVFRaBitQ"),
        (facts("IDMap,Flat"), "faiss has no GPU code for IndexIDMap"),
        (facts("Flat", metric="other"), "inner products and L2 distances only"),
        (facts("IVF16_HNSW8,PQ8"), "the lists are found by IndexHNSWFlat, which faiss has no GPU code for"),
        (facts("IVF4096,PQ8", nprobe=2049), "nprobe is 2049, a GPU searches at most 2048 lists"),
        (facts("IVF16,PQ8", max_codes=9), "max_codes is 9"),
        (facts("IVF16,SQ8", scalar_type="QT_bf16"), "does not support the scalar quantiser QT_bf16"),
        (facts("IVF16,SQ8", 6144), "QT_8bit of 6144 dimensions does not fit the 49152 bytes"),
        (facts("IVF16,PQ8", by_residual=False), "this index whole vectors, and cuVS encodes residuals"),
        (facts("IVF16,PQ8", polysemous=True), "cuVS does not support polysemous codes"),
        (facts("IVF16,PQ5x10", 35), "codes of 8 bits, these have 10, and cuVS reads codes of 4 to 8 bits"),
        (facts("IVF16,PQ3x4", 33), "cuVS reads codes of whole bytes, these have 12 bits"),
    ],
)
def test_left_on_the_cpu_whatever_is_installed(index: IndexFacts, reason: str) -> None:
    placement = plan_placement(index, CUVS, [A100])
    assert placement.kind == "cpu"
    assert reason in placement.reason
    assert str(placement).startswith("CPU: ")


def test_without_gpu_or_build() -> None:
    index = facts("Flat")
    assert plan_placement(index, FaissBuild("1.15.1", gpu=False), [A100]).reason == (
        "this faiss 1.15.1 has no GPU support"
    )
    assert plan_placement(index, NATIVE, []).reason == "there is no CUDA device"


@pytest.mark.parametrize(
    ("factory", "dimension"), [("IVF16,PQ8x4", 32), ("IVF16,PQ10", 40), ("IVF16,PQ8x6", 32)]
)
def test_cuvs_takes_code_sizes_that_faisss_own_code_does_not(factory: str, dimension: int) -> None:
    index = facts(factory, dimension, count=1000)
    placement = plan_placement(index, CUVS, [A100])
    assert placement.kind == "gpu-cuvs"
    assert "by cuVS, since faiss's GPU code" in placement.reason
    assert placement.options == CloneOptions(half_tables=True, short_ids=False, use_cuvs=True)
    assert "cuVS needs compute capability 7.0, P100 has 6.0" in plan_placement(index, CUVS, [PASCAL]).reason
    assert "is built without cuVS" in plan_placement(index, NATIVE, [A100]).reason


def test_lookup_tables_fit_shared_memory_as_16_bit_floats() -> None:
    index = wikipedia()
    placement = plan_placement(index, NATIVE, [A100])  # 96 · 256 · 2 bytes are the 48 KiB exactly
    assert placement.kind == "gpu"
    assert placement.options.half_tables
    less = dataclasses.replace(A100, shared_bytes=(48 << 10) - 1)
    assert (
        "take 49152 bytes even as 16-bit floats, a block has 49151"
        in plan_placement(index, NATIVE, [less]).reason
    )


# --- memory -----------------------------------------------------------------------------------------


def test_wikipedia_takes_about_two_gigabytes() -> None:
    index = wikipedia()
    needed = plan_placement(index, NATIVE, [A100]).bytes
    codes_and_ids = 21_000_000 * (96 + 4)
    assert codes_and_ids < needed < 1.05 * codes_and_ids
    assert device_bytes(index, CloneOptions(short_ids=False)) - needed == 21_000_000 * 4


def test_flat_vectors_are_32_bit_floats_and_half_ones_16() -> None:
    assert device_bytes(facts("Flat", 768, count=10**6), CloneOptions()) == 10**6 * 768 * 4
    assert device_bytes(facts("SQfp16", 768, count=10**6), CloneOptions()) == 10**6 * 768 * 2


def test_what_does_not_fit_stays_on_the_cpu() -> None:
    index = facts("Flat", 768, count=12_000_000)  # 34.3 GiB
    needed = device_bytes(index, CloneOptions())
    room = 2 * GIB + TEMPORARY_BYTES
    exact = dataclasses.replace(A100, free_bytes=needed + room)
    assert plan_placement(index, NATIVE, [exact]).kind == "gpu"
    short = dataclasses.replace(exact, free_bytes=exact.free_bytes - 1)
    placement = plan_placement(index, NATIVE, [short])
    assert placement.kind == "cpu"
    assert (
        "needs 34.33 GiB of device memory, A100 has 34.33 GiB for it (36.83 GiB free, 2.00 GiB"
        in placement.reason
    )
    full = dataclasses.replace(A100, free_bytes=GIB)
    assert "A100 has 0.00 GiB for it" in plan_placement(facts("Flat", count=1), NATIVE, [full]).reason


def test_stored_vectors_go_along_where_they_take_no_more_than_half() -> None:
    index = facts("IVF16,Flat", 768, count=10**6)
    vectors = 10**6 * 768 * 2
    needed = plan_placement(index, NATIVE, [A100]).bytes
    room = 2 * GIB + TEMPORARY_BYTES
    enough = dataclasses.replace(A100, free_bytes=room + 2 * (needed + vectors))
    placement = plan_placement(index, NATIVE, [enough])
    assert (placement.bytes, placement.vectors_bytes) == (needed, vectors)
    assert placement.reason.endswith("; 1.43 GiB of stored vectors fit, too")
    less = dataclasses.replace(enough, free_bytes=enough.free_bytes - 2)
    placement = plan_placement(index, NATIVE, [less])
    assert (placement.kind, placement.vectors_bytes) == ("gpu", 0)
    assert placement.reason.endswith("stored vectors stay on the host")
    assert plan_placement(wikipedia(), NATIVE, [A100]).vectors_bytes == 0  # 30 GiB, behind a rotation to 384


def test_the_device_with_most_free_memory_is_taken() -> None:
    second = dataclasses.replace(A100, number=1, free_bytes=A100.free_bytes + 1)
    placement = plan_placement(wikipedia(), NATIVE, [A100, second])
    assert placement.device == 1
    assert str(placement).startswith("GPU 1: OPQMatrix before IndexIVFPQ")


def test_the_bytes_of_an_index_are_those_of_its_parts() -> None:
    """Counted by hand: ids of 4 or 8 bytes, codes in groups of 32 rows, lists, centroids, codebooks."""
    made = IndexFacts("IndexIVFPQ", 1000, 64, 96, code_size=12, nlist=10, sub_quantizers=12, bits=8)
    short, long = CloneOptions(True, short_ids=True), CloneOptions(True, short_ids=False)
    ids, lists, centroids, codebook = 1000, 10 * (1024 + 32), 10 * 64 * 4, 256 * 64 * 4
    assert device_bytes(made, short) == 4 * ids + 12_000 + lists + centroids + 2 * codebook
    assert device_bytes(made, long) == 8 * ids + 12_000 + lists + centroids + 2 * codebook
    padded = 1000 + 31 * 10
    for sub_quantizers, chunk_bytes in ((12, 16), (16, 16), (17, 32), (32, 32), (33, 48)):
        wide = dataclasses.replace(made, sub_quantizers=sub_quantizers)
        cuvs = CloneOptions(True, short_ids=False, use_cuvs=True)
        codes = padded * chunk_bytes
        assert device_bytes(wide, cuvs) == 8 * ids + codes + lists + 3 * centroids + codebook
    scalar = dataclasses.replace(made, kind="IndexIVFScalarQuantizer")
    assert device_bytes(scalar, short) == 4 * ids + 12 * padded + lists + centroids
    for kind, size in (("IndexFlat", 4), ("IndexScalarQuantizer", 2)):
        assert device_bytes(IndexFacts(kind, 1000, 64, 64), short) == 1000 * 64 * size
    assert IndexFacts("IndexIVFFlat", 9, 8, 8, nlist=1).listed
    assert not IndexFacts("IndexFlat", 9, 8, 8).listed


@pytest.mark.parametrize(("bits", "kind"), [(3, "cpu"), (4, "gpu-cuvs"), (9, "cpu")])
def test_codes_that_cuvs_reads(bits: int, kind: str) -> None:
    index = facts("IVF64,PQ8x4", by_residual=True)
    index = dataclasses.replace(index, bits=bits, sub_quantizers=8, count=1000)
    found = _unfit_for_cuvs(index, dataclasses.replace(NATIVE, cuvs=True), A100)
    assert (found is None) is (kind != "cpu")
    if found:
        assert f"cuVS reads codes of 4 to 8 bits, these have {bits}" in found


def test_tables_are_precomputed_for_l2_alone_and_where_they_fit() -> None:
    index = wikipedia(metric="l2")
    tables = 16384 * 96 * 256 * 2
    with_tables = plan_placement(index, NATIVE, [A100])
    assert with_tables.options.precomputed_tables
    assert with_tables.bytes - plan_placement(wikipedia(), NATIVE, [A100]).bytes == tables
    small = dataclasses.replace(A100, free_bytes=6 * GIB)
    assert not plan_placement(index, NATIVE, [small]).options.precomputed_tables
    assert not plan_placement(wikipedia(), NATIVE, [A100]).options.precomputed_tables


def test_ids_are_64_bit_where_32_are_too_few() -> None:
    many = dataclasses.replace(wikipedia(), count=2**31)
    huge = dataclasses.replace(A100, free_bytes=2000 * GIB)
    assert not plan_placement(many, NATIVE, [huge]).options.short_ids
    assert plan_placement(dataclasses.replace(many, count=2**31 - 1), NATIVE, [huge]).options.short_ids


def test_what_a_build_chooses_can_be_searched_on_a_gpu() -> None:
    for count in (1000, 60_000, 10**6, 21 * 10**6):
        for dimension in (8, 32, 100, 128, 384, 768, 1024):
            index = facts(plan_index(count, dimension).factory, dimension, count=count)
            placement = plan_placement(index, NATIVE, [dataclasses.replace(A100, free_bytes=1000 * GIB)])
            assert placement.kind == "gpu", (count, dimension, placement)


# --- on this machine --------------------------------------------------------------------------------

no_gpu = pytest.mark.skipif(faiss_build().gpu, reason="this faiss has GPU support")


@no_gpu
def test_an_index_says_where_it_is_searched(build: Callable[..., Path]) -> None:
    path = build(random_vectors(20))
    reason = f"CPU: this faiss {faiss.__version__} has no GPU support"
    with PassageIndex.open(path) as opened:
        assert str(opened.placement) == "CPU: device is cpu"
        assert str(opened.best_placement()) == str(where(opened._open_part().faiss_index)) == reason
    with PassageIndex.open(path, device="auto") as opened:
        assert str(opened.placement) == reason
        assert len(opened.search(np.zeros((1, 8), np.float32), 3).rows) == 1
    shown = CliRunner().invoke(cli, ["index", "info", str(path)])
    assert reason in " ".join(shown.output.split())


def test_a_device_that_is_none_is_refused(build: Callable[..., Path]) -> None:
    with pytest.raises(DeviceError, match="The index's device is 'tpu'; it must be auto, cpu or cuda"):
        PassageIndex.open(build(random_vectors(20)), device="tpu")


@no_gpu
def test_cuda_never_falls_back(build: Callable[..., Path]) -> None:
    with pytest.raises(
        DeviceError, match=r"cannot be searched there: this faiss .* has no GPU support; search"
    ):
        PassageIndex.open(build(random_vectors(20)), device="cuda")
