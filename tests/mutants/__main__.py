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

from tests.mutants.listed import TESTS
from tests.mutants.mutations import mutants
from tests.mutants.trials import Trials
from tests.support.paths import ROOT

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
