"""`ragengine doctor` in a process of its own, whose environment a test chooses."""

import json
import os
import subprocess
import sys
from typing import Any

COMMAND = "import sys; sys.argv[0] = 'ragengine'; from ragengine.cli.main import main; main()"


def doctor(*arguments: object, **environment: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", COMMAND, "doctor", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            **{name: str(value) for name, value in environment.items()},
        },
    )


def reported(*arguments: object, **environment: object) -> tuple[int, dict[str, Any]]:
    """The exit code and the JSON of a run, which must have nothing on stderr."""
    result = doctor(*arguments, "--json", **environment)
    assert result.stderr == ""
    return result.returncode, json.loads(result.stdout)
