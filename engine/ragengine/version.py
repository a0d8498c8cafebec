"""The version of this ragengine."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("ragengine")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"
