"""Fuzzing, in addition to the property tests: ``make fuzz HOURS=1``, or one alone for a minute:

    python -m tests.fuzz.manifests -max_total_time=60
    python -m tests.fuzz.command_lines --seconds 60

The readers of foreign files run under atheris, guided by coverage; the arguments are libFuzzer's.  An
exception other than :class:`ragengine.errors.RagEngineError` ends the run, and its input is written to a
file: make a test of it.  The command line is fuzzed with its own grammar.
"""

from typing import Final

READERS: Final = (
    "manifests",
    "graphs",
    "passages",
    "arrays",
    "tokenizers",
    "datasets",
    "faiss_files",
    "weights",
)
"""The modules that run under atheris."""
