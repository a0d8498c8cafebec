"""The arrays that pass between modules: one alias a data type, shapes in the docstrings that use them."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]
"""Scores, log-probabilities and vectors in computation."""
HalfArray: TypeAlias = NDArray[np.float16]
"""Stored passage vectors."""
DoubleArray: TypeAlias = NDArray[np.float64]
"""Statistics."""
IntArray: TypeAlias = NDArray[np.int64]
"""Token ids, masks, beams."""
RowArray: TypeAlias = NDArray[np.int64]
"""Rows of an index."""
BoolArray: TypeAlias = NDArray[np.bool_]
"""Masks of the host."""
