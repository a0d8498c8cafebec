"""Run the tests of a module against each of its mutants, and list those that no test notices.

    python -m tests.mutants [--share S] [--seed TEXT] [MODULE[:LINE,...] ...]

Of a module with very many mutants, a random share is enough.  Fails where a mutant survives that
docs/notes/mutants.md does not list.  Tests that start a process see the source as it is.
"""

import argparse
import os
import secrets
from pathlib import Path
from random import Random
from typing import Final

from tests.mutants.mutations import mutants
from tests.mutants.trials import Trials
from tests.support.paths import ROOT

_QUICK: Final = "-k not (larger_than_memory or forged_files_neither or OPQ or wider_rerank or one_thread)"
"""Without tests that start processes or take seconds, and those of OpenMP's threads, which a fork lacks."""
_SEARCH_TESTS: Final[dict[str, tuple[str, ...]]] = {
    "beam_search": ("beam_search", "greedy", "search"),
    "beams": ("beams", "beam_search"),
    "candidates": ("candidates", "rules"),
    "greedy": ("greedy",),
    "likelihood": ("likelihood", "rag_sequence"),
    "outputs": ("outputs", "search", "greedy"),
    "prefix_trie": ("prefix_trie",),
    "rag_sequence": ("rag_sequence", "search"),
    "rules": ("rules",),
    "sampling": ("sampling", "search"),
    "search": ("search",),
    "step": ("step", "search"),
}
TESTS: Final[dict[str, tuple[str, ...]]] = {
    "ragengine.generation.marginalization": (
        "generation/test_marginalization.py",
        *(f"generation/search/test_{name}.py" for name in ("outputs", "search", "beam_search")),
    ),
    **{
        f"ragengine.generation.search.{module}": tuple(f"generation/search/test_{name}.py" for name in names)
        for module, names in _SEARCH_TESTS.items()
    },
    "ragengine.runtime.cancellation": ("runtime/test_cancellation.py",),
    "ragengine.storage.atomic": ("storage/test_atomic.py", "storage/test_folders.py"),
    "ragengine.storage.folders": (
        *("storage/test_folders.py", "storage/test_folders_interrupted.py", "storage/test_manifests.py"),
    ),
    "ragengine.storage.foreign_files": ("storage/test_foreign_files.py",),
    "ragengine.storage.npy": ("storage/test_npy.py",),
    "ragengine.storage.ownership": ("storage/test_ownership.py", "storage/test_folders.py"),
    "ragengine.storage.schema": ("storage/test_schema.py", "storage/test_manifests.py"),
    "ragengine.storage.strict_json": ("storage/test_strict_json.py", "storage/test_schema.py"),
    "ragengine.retrieval.faiss_api": ("retrieval/test_vector_index.py", _QUICK),
    "ragengine.retrieval.faiss_header": ("retrieval/test_faiss_reader.py", _QUICK),
    "ragengine.retrieval.faiss_reader": ("retrieval/test_faiss_reader.py", _QUICK),
    "ragengine.retrieval.index": ("retrieval/test_index.py", "retrieval/gpu/test_search_worker.py"),
    "ragengine.retrieval.index_slot": ("retrieval/test_index_slot.py",),
    "ragengine.retrieval.passage_store": ("retrieval/test_index.py", "corpus/test_readers.py"),
    "ragengine.retrieval.vector_index": (
        "retrieval/test_vector_index.py",
        *(
            "retrieval/test_index.py",
            "retrieval/gpu/test_search_worker.py",
            "retrieval/gpu/test_rescoring.py",
            _QUICK,
        ),
    ),
    "ragengine.retrieval.gpu.placement": ("retrieval/gpu/test_placement.py",),
    "ragengine.retrieval.gpu.rescoring": ("retrieval/gpu/test_rescoring.py",),
    "ragengine.retrieval.gpu.search_worker": ("retrieval/gpu/test_search_worker.py",),
}
"""The tests of each module, of which the quickest run first, and options of pytest."""
NOTE: Final = ROOT / "docs" / "notes" / "mutants.md"


def survivors(module: str, lines: str, share: float, random: Random) -> list[str]:
    """The mutants of ``module``, of some lines or of a random share, that no test notices."""
    path = ROOT / "engine" / Path(*module.split(".")).with_suffix(".py")
    made = list(mutants(path.read_text("utf-8")))
    wanted = {int(line) for line in lines.split(",") if line}
    chosen = [one for one in made if random.random() < share and (not wanted or one.line in wanted)]
    trials = Trials(module, path, TESTS[module], chosen)
    trials.run(lambda mutant: print(f"{path.relative_to(ROOT)}:{mutant.line}: {mutant}", flush=True))
    print(f"{module}: {len(chosen)} of {len(made)} mutants, {len(trials.survivors)} not noticed", flush=True)
    return [f"{module.removeprefix('ragengine.')}.{mutant}" for mutant in trials.survivors]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--share", type=float, default=1.0, help="of each module's mutants, above 0 to 1")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="chooses the share")
    parser.add_argument("modules", nargs="*", metavar="MODULE[:LINE,...]")
    chosen = parser.parse_args()
    modules = [module.partition(":")[::2] for module in chosen.modules or TESTS]
    if unlisted := {module for module, _ in modules} - {*TESTS}:
        parser.error(f"no tests are listed for {sorted(unlisted)}")
    os.chdir(ROOT)
    print(f"share {chosen.share}, seed {chosen.seed}", flush=True)
    listed, random = NOTE.read_text("utf-8"), Random(chosen.seed)
    found = [one for module, lines in modules for one in survivors(module, lines, chosen.share, random)]
    unknown = [one for one in found if one not in listed]
    if unknown:
        raise SystemExit(f"{len(unknown)} mutants survive that {NOTE.relative_to(ROOT)} does not list")


if __name__ == "__main__":
    main()
