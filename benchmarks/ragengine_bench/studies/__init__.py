"""Measurements of single questions about the engine."""
