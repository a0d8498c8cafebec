"""A report that several tests look at."""

import pytest

from ragengine_bench.harness.report import Report, Row, Sample, Section


@pytest.fixture
def report() -> Report:
    stages = {"encode documents": 0.02, "decode": 0.03, "between": 0.01}
    rooflines = {"encode documents": 0.01, "decode": 0.005}
    ours = [
        Sample(0.06, 1, 4, stages, rooflines, [0.01, 0.02]),
        Sample(0.07, 1, 4, stages, rooflines, [0.03]),
    ]
    rows = [
        Row(
            "transformers fp32",
            "padded to 300",
            samples=[Sample(0.6, 1, 4), Sample(0.7, 1, 4)],
            outputs=[[7]],
        ),
        Row("CTranslate2 int8", "int8", does_less="no marginalisation", failure="not installed"),
        Row("ragengine fp32", "a bundle", ours=True, load_seconds=0.1, peak_bytes=10**8, samples=ours),
    ]
    sweep = [
        Row("ragengine fp32", "", True, point=n, samples=[Sample(0.1 * n, rooflines=rooflines)])
        for n in (1, 2)
    ]
    machine = {"processor": "<a & b>", "cores": 2, "threads": 2, "date": "today", "versions": {"numpy": "2"}}
    sections = [
        Section("generation", "RAG-Token & more", {"documents": 5}, rows=rows),
        Section("sweep", "beams varied", {}, "beams", sweep),
    ]
    return Report(["--shape", "tiny"], machine, {"fp32 GEMM, operations/s": 1e9}, sections)
