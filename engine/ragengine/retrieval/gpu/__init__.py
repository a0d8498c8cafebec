"""Searching an index on a GPU."""
