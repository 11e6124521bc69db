"""Resize uint8 images as PyTorch does: bicubic, antialiased, in integers, first along rows, then along columns.

Bit-equal to ``torch.nn.functional.interpolate(mode="bicubic", antialias=True)`` on CPUs with AVX2; torchvision, and
the processors of transformers that are built on torchvision, resize with this function. Pillow's bicubic filter is the
same with weights of higher precision, so that a byte occasionally differs by one.
Source of the formulas: PyTorch, aten/src/ATen/native/cpu/UpSampleKernel.cpp, ``_compute_index_ranges_int16_weights``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qwenvis import ops

A = -0.5  # parameter of the bicubic filter, as in Pillow
SUPPORT = 2.0  # half of the filter's length
WEIGHT_BITS = 15  # a weight is under 2^15: PyTorch keeps it in int16
MAX_PRECISION = 22


class FilterTaps(NamedTuple):
    """Taps of a filter: output i is the sum over k of weights[i, k] · input[starts[i] + k], over 2^precision.

    ``starts`` (target,) and ``weights`` (target, taps) are int32.
    """

    starts: NDArray[np.int32]
    weights: NDArray[np.int32]
    precision: int


def resize(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize a frame (h, w, 3) uint8, C-contiguous, to (height, width, 3); a frame of that size is returned as is."""
    if frame.shape[1] != width:
        frame = ops.resample_rows(frame, *taps(frame.shape[1], width), np.empty((len(frame), width, 3), np.uint8))
    if frame.shape[0] != height:
        frame = ops.resample_columns(frame, *taps(len(frame), height), np.empty((height, width, 3), np.uint8))
    return frame


@lru_cache(maxsize=16)
def taps(source: int, target: int) -> FilterTaps:
    """Compute the filter that resamples ``source`` entries to ``target`` entries."""
    scale = source / target
    stretch = max(scale, 1.0)
    support = SUPPORT * stretch
    most = math.ceil(support) * 2 + 1
    center = scale * (np.arange(target) + 0.5)
    low = np.maximum((center - support + 0.5).astype(np.int64), 0)
    count = np.clip(np.minimum((center + support + 0.5).astype(np.int64), source) - low, 0, most)
    weights = np.zeros((target, most))
    total = np.zeros(target)
    for k in range(most):  # in PyTorch's order, which determines the last bit of the total
        weights[:, k] = np.where(k < count, _cubic((k + low - center + 0.5) * (1.0 / stretch)), 0)
        total += weights[:, k]
    weights /= total[:, None]
    precision = 0
    while precision < MAX_PRECISION and int(0.5 + weights.max() * (1 << (precision + 1))) < 1 << WEIGHT_BITS:
        precision += 1
    scaled = weights * (1 << precision)
    return _inside(low, np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int32), source, precision)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate the cubic convolution kernel (Keys, 1981) in PyTorch's form and order of operations."""
    x = np.abs(x)
    near = ((A + 2) * x - (A + 3)) * x * x + 1
    far = ((A * x - 5 * A) * x + 8 * A) * x - 4 * A
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _inside(low: NDArray[np.int64], weights: NDArray[np.int32], source: int, precision: int) -> FilterTaps:
    """Shift starts so that no tap, not even one of weight 0, lies beyond the last entry; the sums stay the same."""
    most = min(int(np.flatnonzero(weights.any(axis=0))[-1]) + 1, source)
    starts = np.minimum(low, source - most)
    moved = np.zeros((len(low), most), np.int32)
    for i, shift in enumerate((low - starts).tolist()):
        moved[i, shift:] = weights[i, : most - shift]
    return FilterTaps(starts.astype(np.int32), moved, precision)
