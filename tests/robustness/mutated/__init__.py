"""Damaged and forged files: the cases that :mod:`tests.robustness.children` runs."""
