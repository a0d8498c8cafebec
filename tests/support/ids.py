"""Names of parametrized tests."""

import re


def stable_repr(value: object) -> str:
    """`repr` without memory addresses: workers of pytest-xdist must give a test the same name."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
