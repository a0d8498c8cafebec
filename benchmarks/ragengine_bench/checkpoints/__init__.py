"""Checkpoints with random weights."""
