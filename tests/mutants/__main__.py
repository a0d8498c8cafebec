"""Run the tests of a module against each of its mutants, and list those that no test notices.

    python -m tests.mutants [--share S] [--seed TEXT] [MODULE ...]

Of a module with very many mutants, a random share is enough.  Fails where a mutant survives that
docs/notes/mutants.md does not list.  Tests that start a process see the source as it is.
"""

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import CodeType, ModuleType
from typing import Final

import pytest

import tests.support.models  # noqa: F401  # with every library, once for all forks
from tests.mutants.mutations import Mutant, mutants
from tests.support.paths import ROOT

TESTS: Final[dict[str, tuple[str, ...]]] = {
    "ragengine.generation.marginalization": ("generation/test_marginalization.py", "generation/search"),
    "ragengine.runtime.cancellation": ("runtime/test_cancellation.py",),
    "ragengine.storage.atomic": ("storage/test_atomic.py", "storage/test_folders.py"),
    "ragengine.storage.folders": ("storage", "robustness/test_writing_forbidden.py"),
    "ragengine.storage.foreign_files": ("storage/test_foreign_files.py", "robustness/test_foreign_files.py"),
    "ragengine.storage.npy": ("storage/test_npy.py", "robustness/test_foreign_files.py"),
    "ragengine.storage.ownership": ("storage/test_ownership.py", "storage/test_folders.py"),
    "ragengine.storage.schema": ("storage",),
    "ragengine.storage.strict_json": ("storage/test_strict_json.py", "storage"),
    "ragengine.retrieval.faiss_header": ("retrieval/test_faiss_reader.py",),
    "ragengine.retrieval.faiss_reader": (
        "retrieval/test_faiss_reader.py",
        "robustness/test_foreign_files.py",
    ),
    "ragengine.retrieval.vector_index": ("retrieval/test_vector_index.py", "retrieval/test_index.py"),
    **{
        f"ragengine.generation.search.{name}": (
            *(f"generation/search/test_{name}.py", "generation/search", "parity/test_laws.py"),
        )
        for name in (
            *("candidates", "beams", "beam_search", "greedy", "likelihood", "outputs", "prefix_trie"),
            *("rag_sequence", "rules", "sampling", "search", "step"),
        )
    },
}
"""The tests of each module, those that notice most first."""
NOTE: Final = ROOT / "docs" / "notes" / "mutants.md"
_OPTIONS: Final = (
    *("-x", "-q", "-p", "no:cacheprovider"),
    *(
        "-W",
        "error",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
    ),  # of libraries
)
_SLOWER = 5.0
"""A mutant whose tests take so many times as long as usual, and some seconds, runs in circles: noticed."""


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a syntax tree."""

    def __init__(self, name: str, code: CodeType, path: Path) -> None:
        self._name, self._code, self._path = name, code, path

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._name:
            return None
        return importlib.util.spec_from_file_location(name, self._path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)


def noticed(module: str, path: Path, mutant: Mutant | None, seconds: float) -> bool:
    """Whether the tests of ``module`` fail in a fork that imports the mutant."""
    process = os.fork()
    if process == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        for name in [*sys.modules]:  # what is ours is imported anew; the libraries it needs are there
            if name.startswith(("ragengine", "tests.")):
                del sys.modules[name]
        if mutant is not None:
            code = compile(mutant.tree, str(path), "exec")
            sys.meta_path.insert(0, _Mutated(module, code, path))
        os._exit(int(pytest.main([*_OPTIONS, *(f"tests/{test}" for test in TESTS[module])])) != 0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status != 0
        time.sleep(0.02)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return True


def survivors(module: str, share: float, random: Random) -> list[str]:
    """The mutants of ``module``, or of a random share of them, that no test notices."""
    path = ROOT / "engine" / Path(*module.split(".")).with_suffix(".py")
    started = time.monotonic()
    if noticed(module, path, None, 600.0):
        raise SystemExit(f"the tests of {module} fail as it is")
    seconds = _SLOWER * (time.monotonic() - started) + 10.0
    made = list(mutants(path.read_text("utf-8")))
    chosen = [mutant for mutant in made if random.random() < share]
    found = []
    for mutant in chosen:
        if not noticed(module, path, mutant, seconds):
            found.append(f"{module.removeprefix('ragengine.')}.{mutant}")
            print(f"{path.relative_to(ROOT)}:{mutant.line}: {found[-1]}", flush=True)
    print(f"{module}: {len(chosen)} of {len(made)} mutants, {len(found)} not noticed", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--share", type=float, default=1.0, help="of each module's mutants, above 0 to 1")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="chooses the share")
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    chosen = parser.parse_args()
    if unlisted := {*chosen.modules} - {*TESTS}:
        parser.error(f"no tests are listed for {sorted(unlisted)}")
    os.chdir(ROOT)
    print(f"share {chosen.share}, seed {chosen.seed}", flush=True)
    listed, random = NOTE.read_text("utf-8"), Random(chosen.seed)
    found = [one for module in chosen.modules or TESTS for one in survivors(module, chosen.share, random)]
    unknown = [one for one in found if one not in listed]
    if unknown:
        raise SystemExit(f"{len(unknown)} mutants survive that {NOTE.relative_to(ROOT)} does not list")


if __name__ == "__main__":
    main()
