"""How tests start `ragengine`."""

import sys

COMMAND = [sys.executable, "-c", "from ragengine.cli.main import main; main()"]
"""The command line of this tree, whatever is installed."""
