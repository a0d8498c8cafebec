"""The generator: BART read over D documents at once, and the search for y."""
