"""Bicubic resizing of bytes as torch does it, whose image processors transformers prefers where torchvision is there.

Pillow and torch have one filter (Keys' cubic with -0.5, as wide as the reduction). They round its weights to other
numbers of bits, Pillow to 22 and torch to as many as fit into int16, and need not take the two axes in one order.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qwenvis import ops

SUPPORT = 2  # of the cubic, on either side
LARGEST = 2**15  # weights are int16


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return an image (h, w, 3) resized to (height, width, 3): first every row, then every column, each to bytes.

    ``interpolate(mode="bicubic", antialias=True)`` of torch on uint8 (UpSampleKernelAVXAntialias.h), to the bit.
    """
    if image.shape[1] != width:
        weights = taps(image.shape[1], width)
        image = ops.resample_rows(image, *weights, np.empty((image.shape[0], width, 3), np.uint8))
    if image.shape[0] != height:
        weights = taps(image.shape[0], height)
        image = ops.resample_columns(image, *weights, np.empty((height, width, 3), np.uint8))
    return image


def taps(size: int, resized: int) -> tuple[NDArray[np.int32], NDArray[np.int16], int]:
    """Where the entries that make each of ``resized`` ones start, their weights (resized, n), and the weights' bits.

    ``_compute_index_ranges_int16_weights`` of UpSampleKernel.cpp, in float64 as there.
    """
    scale = size / resized
    support = SUPPORT * max(scale, 1.0)
    most = math.ceil(np.float32(support)) * 2 + 1
    centres = scale * (np.arange(resized) + 0.5)
    starts = np.maximum(np.trunc(centres - support + 0.5), 0).astype(np.int64)
    counts = np.clip(np.minimum(np.trunc(centres + support + 0.5).astype(np.int64), size) - starts, 0, most)
    entries = np.arange(most)
    weights = _cubic((entries + starts[:, None] - centres[:, None] + 0.5) * (1.0 / scale if scale >= 1.0 else 1.0))
    weights[entries >= counts[:, None]] = 0
    # Summed from left to right: another order would round otherwise.
    total = np.cumsum(weights, axis=1)[:, -1:]
    weights /= total
    bits = _bits(float(weights.max()))
    rounded = np.trunc(weights * (1 << bits) + np.where(weights < 0, -0.5, 0.5))
    return starts.astype(np.int32), rounded.astype(np.int16), bits


def _bits(largest: float) -> int:
    """The largest precision, under 22, at which the largest weight is below 2**15."""
    return next((bits for bits in range(22) if int(0.5 + largest * (1 << (bits + 1))) >= LARGEST), 22)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic, a = -0.5."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
