"""The build of a scale run, in a process of its own that may be killed:

    python -m ragengine_bench.index.scale.build WORK COUNT DIMENSION THREADS [--resume]

It prints a line of JSON for each step of progress.
"""

import sys
import time
from pathlib import Path

from ragengine.cli.output import print_json
from ragengine.indexing.build import build_index
from ragengine_bench.index.scale.data import ScaleData

INDEX, PASSAGES, QUERIES, BUNDLE = "index", "passages.tsv", "queries.npy", "bundle"
"""The names in the folder of a run."""
_EVERY = 0.2  # seconds


class _Printed:
    """Progress as lines of JSON, a few a second and each phase's first."""

    def __init__(self) -> None:
        self._phase, self._said = "", 0.0

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if phase != self._phase or now - self._said >= _EVERY or done == total:
            self._phase, self._said = phase, now
            print_json([phase, done, total])


def main(arguments: list[str]) -> None:
    """Build or resume the index of a run's folder."""
    work, threads = Path(arguments[0]), int(arguments[3])
    data = ScaleData(int(arguments[1]), int(arguments[2]), threads)
    build_index(
        work / PASSAGES,
        work / INDEX,
        bundle=work / BUNDLE,
        embeddings=data.embeddings,
        queries=work / QUERIES,
        threads=threads,
        resume="--resume" in arguments,
        progress=_Printed(),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
