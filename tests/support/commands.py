"""The command line in a process of its own, as a shell would run it."""

import subprocess
import sys

COMMAND = [sys.executable, "-c", "from ragengine.cli.main import main; main()"]
"""Starts the command line of this tree, whatever is installed."""
BLOCKING = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""
"""With ``blocked`` filled in, a program's first lines: the packages in it cannot be imported."""
_MAIN = f"""{BLOCKING}
sys.argv = ["ragengine", *{{arguments!r}}]
from ragengine.cli.main import main
main()
"""


def run(*arguments: object, blocked: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run `ragengine`; the packages in ``blocked`` cannot be imported."""
    code = _MAIN.format(blocked=set(blocked), arguments=[str(a) for a in arguments])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
