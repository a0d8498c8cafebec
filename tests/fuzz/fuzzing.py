"""Run one reader over files that atheris makes."""

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import atheris

from ragengine.errors import RagEngineError


def fuzz(read: Callable[[Path, bytes], None], seeds: Iterable[bytes]) -> None:
    """Call ``read(folder, data)`` as long as the arguments say, beginning with ``seeds``.

    ``folder`` is the same for all calls and empty at the start.  Only our own errors may be raised.
    """
    with tempfile.TemporaryDirectory(prefix="ragengine-fuzz-") as scratch:
        corpus, folder = Path(scratch, "corpus"), Path(scratch, "files")
        corpus.mkdir()
        folder.mkdir()
        for number, seed in enumerate(seeds):
            (corpus / f"seed{number}").write_bytes(seed)

        def run(data: bytes) -> None:
            with contextlib.suppress(RagEngineError):
                read(folder, data)

        atheris.Setup([*sys.argv, "-rss_limit_mb=4096", "-timeout=20", str(corpus)], run)
        atheris.Fuzz()
