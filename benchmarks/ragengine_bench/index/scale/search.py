"""Opening and searching the index of a scale run on one thread, in a process of its own:

    python -m ragengine_bench.index.scale.search INDEX QUESTIONS.npy

It prints one line of JSON.  Cold is measured with the files of the index dropped from the page cache.
"""

import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ragengine.arrays import FloatArray
from ragengine.cli.output import print_json
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.recall import RECALL_AT, RecallTest
from ragengine_bench.index.scale.watch import anonymous_bytes

_COLD_ROUNDS = 10
_WARM_ROUNDS = 3


def measure(folder: Path, questions: FloatArray) -> dict[str, Any]:
    """Times in milliseconds, memory in bytes, and the recall of ``questions`` [Q, E]; texts are read, too."""
    opened, first = [], []
    for question in questions[:_COLD_ROUNDS]:
        drop_from_page_cache(folder)
        start = time.perf_counter()
        index = PassageIndex.open(folder, verify="size")
        opened.append(time.perf_counter() - start)
        first += _times(index, question[None])
        index.close()
        del index  # the mapping ends with it
    drop_from_page_cache(folder)
    with PassageIndex.open(folder, verify="size") as index:
        anonymous = anonymous_bytes()
        new = _times(index, questions)
        warm = [seconds for _ in range(_WARM_ROUNDS) for seconds in _times(index, questions)]
        searched = anonymous_bytes()
        part = index._open_part()
        recall = RecallTest.of_questions(part.vectors, questions).measure(part)
        search = dict(index.manifest.search)
        manifest_recall = index.manifest.recall
    return {
        "search": search,
        "questions": len(questions),
        "recall": recall,
        "tuned_recall": manifest_recall,
        "open_cold_ms": _figures(opened),
        "first_cold_ms": _figures(first),
        "new_questions_ms": _figures(new),
        "warm_ms": _figures(warm),
        "anonymous_opened": anonymous,
        "anonymous_searched": searched,
    }


def drop_from_page_cache(folder: Path) -> None:
    """Forget the files of ``folder``; what a process has mapped stays."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fdatasync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def _times(index: PassageIndex, questions: FloatArray) -> list[float]:
    """Seconds of a search with its texts, a question at a time."""
    seconds = []
    for question in questions:
        start = time.perf_counter()
        index.search_documents(question[None], RECALL_AT)
        seconds.append(time.perf_counter() - start)
    return seconds


def _figures(seconds: list[float]) -> dict[str, float]:
    return {
        "median": round(1000 * statistics.median(seconds), 3),
        "p99": round(1000 * float(np.quantile(seconds, 0.99)), 3),
        "most": round(1000 * max(seconds), 3),
    }


def main(arguments: list[str]) -> None:
    """Measure the index of the first argument with the questions of the second."""
    print_json(measure(Path(arguments[0]), np.load(arguments[1], allow_pickle=False)))


if __name__ == "__main__":
    main(sys.argv[1:])
