"""Fuzz everything, each for its share of the time: ``python -m tests.fuzz HOURS``."""

import subprocess
import sys
from typing import Final

from tests.fuzz import READERS

_GRACE_SECONDS: Final = 300


def main(hours: float) -> None:
    share = max(1, int(hours * 3600 / (len(READERS) + 1)))
    runs = [[f"tests.fuzz.{reader}", f"-max_total_time={share}"] for reader in READERS]
    runs.append(["tests.fuzz.command_lines", "--seconds", str(share)])
    failed = []
    for run in runs:
        print(" ".join(run), flush=True)
        ended = subprocess.run([sys.executable, "-m", *run], check=False, timeout=share + _GRACE_SECONDS)
        if ended.returncode:
            failed.append(run[0])
    print("No failures." if not failed else f"Failures of {', '.join(failed)}: see above.")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main(float(sys.argv[1]))
