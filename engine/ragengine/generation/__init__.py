"""The generator: BART read over D documents at once, and the search for y."""

from ragengine.generation.generator import Generator

__all__ = ["Generator"]
