"""Round-to-nearest quantisation of weight matrices.

int8   w ≈ s_n q,            q in -127..127, s_n = max |w| / 127 of row n (one output channel)
int4   w ≈ s_b (q - z_b),    q in 0..15 (a scale and a zero point a block of a row)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragengine.arrays import FloatArray

_TINY = np.finfo(np.float32).tiny  # smaller scales have lost their digits; numbers that small are stored as 0


def int8_rows(weight: FloatArray) -> tuple[NDArray[np.int8], FloatArray]:
    """``weight`` [N, K] as int8 [N, K] and float32 scales [N].  A row of zeros, or near, has the scale 1."""
    scales = np.abs(weight).max(axis=1, initial=0.0) / np.float32(127)
    scales[scales < _TINY] = 1
    return np.rint(weight / scales[:, None]).astype(np.int8), scales.astype(np.float32)


@dataclass(frozen=True)
class Int4Blocks:
    """A matrix [N, K] as ``MatMulNBits`` reads it, K padded to whole blocks.

    values  uint8 [N, blocks, block_size / 2], two numbers a byte, the first in the low half
    scales  float32 [N, blocks]
    zeros   uint8 [N, ceil(blocks / 2)], packed likewise
    """

    values: NDArray[np.uint8]
    scales: FloatArray
    zeros: NDArray[np.uint8]


def int4_blocks(weight: FloatArray, block_size: int) -> Int4Blocks:
    """``weight`` [N, K] in blocks of ``block_size`` (a power of two, at least 16) along K."""
    n, k = weight.shape
    count = -(-k // block_size)
    padded = np.zeros((n, count * block_size), np.float32)
    padded[:, :k] = weight
    blocks = padded.reshape(n, count, block_size)
    low = np.minimum(blocks.min(axis=2), 0)  # zero must be exact: the padding is zero
    scales = (np.maximum(blocks.max(axis=2), 0) - low) / np.float32(15)
    scales[scales < _TINY] = 1
    zeros = np.rint(-low / scales)
    values = np.clip(np.rint(blocks / scales[..., None]) + zeros[..., None], 0, 15)
    return Int4Blocks(_packed(values), scales.astype(np.float32), _packed(zeros))


def _packed(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers 0..15 two a byte along the last axis, the first in the low half."""
    numbers = values.astype(np.uint8)
    if numbers.shape[-1] % 2:
        numbers = np.concatenate([numbers, np.zeros_like(numbers[..., :1])], axis=-1)
    high = numbers[..., 1::2] << np.uint8(4)
    packed: NDArray[np.uint8] = numbers[..., ::2] | high
    return packed
