"""The tables of docs/guides/scale.md, computed from the planner and from the figures that the page states.

python -m tests.docs.scale_table    prints them
"""

from typing import Any

import faiss

from ragengine.indexing.plan import (
    FLAT_LIMIT,
    bytes_per_vector,
    disk_needed,
    memory_needed,
    plan_index,
    training_count,
)
from ragengine.indexing.training import empty_faiss_index

DIMENSION = 768
COUNTS = (10_000, 100_000, 1_000_000, 10_000_000, 21_015_300, 100_000_000, 1_000_000_000)
TEXT_BYTES = 700
"""Of a passage of 100 words in passages.sqlite."""
RATE = 348e9
"""Multiplications and additions a second that faiss's k-nearest-centroid search reached on two idle cores."""
ENCODER_PARAMETERS, TOKENS = 85e6, 130
"""BERT-base without its embeddings, and the tokens of a passage of 100 words with its title."""
GPU_RATE = 100e12
"""Multiplications and additions a second, half precision: assumed of a GPU that encodes."""
CORE_HOUR, GPU_HOUR, GB_MONTH = 0.05, 2.00, 0.08
"""Assumed prices in dollars."""
_ITERATIONS = 10  # of k-means, as faiss trains inverted lists


def sizes() -> list[str]:
    """Disk and memory by the number of passages."""
    lines = [
        "| passages | factory | `index.faiss` | `vectors.npy` | `passages.sqlite` | "
        "memory to build, at most | disk to build |",
        "|---|---|---|---|---|---|---|",
    ]
    for count in COUNTS:
        plan = plan_index(count, DIMENSION)
        index = empty_faiss_index(plan.factory, DIMENSION)
        texts = TEXT_BYTES * count
        cells = [
            f"{count:,}",
            f"`{plan.factory}`",
            _size(_faiss_bytes(index, count)),
            _size(2 * DIMENSION * count),
            _size(texts),
            _size(memory_needed(index, count, DIMENSION)),
            _size(disk_needed(index, count, DIMENSION, texts)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def work() -> list[str]:
    """The work of encoding, training and adding by the number of passages, and its time on two cores."""
    lines = [
        "| passages | encoding | training | adding | training and adding on two idle cores |",
        "|---|---|---|---|---|",
    ]
    for count in COUNTS:
        if count < FLAT_LIMIT:
            continue
        parts = operations(count)
        cells = [f"{count:,}", *map(_tera, parts), _time(sum(parts[1:]) / RATE)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def prices() -> list[str]:
    """What building once and keeping the files costs, in dollars."""
    lines = [
        "| passages | encoding on a GPU | | training and adding | files a month |",
        "|---|---|---|---|---|",
    ]
    for count in COUNTS:
        if count < FLAT_LIMIT:
            continue
        encoding, *indexing = operations(count)
        index = empty_faiss_index(plan_index(count, DIMENSION).factory, DIMENSION)
        kept = _faiss_bytes(index, count) + (2 * DIMENSION + TEXT_BYTES) * count
        cells = [
            f"{count:,}",
            _time(encoding / GPU_RATE),
            _dollars(encoding / GPU_RATE / 3600 * GPU_HOUR),
            _dollars(2 * sum(indexing) / RATE / 3600 * CORE_HOUR),
            _dollars(kept / 1e9 * GB_MONTH),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def operations(count: int) -> tuple[float, float, float]:
    """Multiplications and additions of encoding, training and adding ``count`` passages."""
    index = empty_faiss_index(plan_index(count, DIMENSION).factory, DIMENSION)
    lists = faiss.extract_index_ivf(index)
    distances = 2 * lists.nlist * lists.d
    return (
        2 * ENCODER_PARAMETERS * TOKENS * count,
        _ITERATIONS * training_count(index, count) * distances,
        count * (distances + 2 * DIMENSION * lists.d),
    )


def _faiss_bytes(index: Any, count: int) -> int:
    lists = faiss.try_extract_index_ivf(index)
    learnt = 0 if lists is None else 4 * (DIMENSION * lists.d + lists.nlist * lists.d + 256 * lists.d)
    return bytes_per_vector(index) * count + learnt


def _size(size: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1e6:.0f} MB"


def _tera(operations: float) -> str:
    return f"{operations / 1e12:,.2g}" if operations < 1e13 else f"{operations / 1e12:,.0f}"


def _dollars(price: float) -> str:
    return f"{price:,.2f}" if price < 100 else f"{price:,.0f}"


def _time(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    print("\n".join([*sizes(), "", *work(), "", *prices()]))
