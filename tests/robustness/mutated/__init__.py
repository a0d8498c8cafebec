"""Files that are not what they were: the cases that :mod:`tests.robustness.children` runs."""
