"""float32 arrays for the tests of the ops: random arrays, arrays between fences of NaN, comparison of bits."""

from __future__ import annotations

import math

import numpy as np

# A quiet NaN that no arithmetic produces: a kernel that reads it spoils its result, one that overwrites it is noticed.
POISON = np.uint32(0x7FC0DEAD)

# Floats before and after an array. FRONT is odd, so that rows are not aligned; REAR exceeds the widest panel.
FRONT, REAR = 19, 67


class Fenced:
    """An array (rows, ...) of poison surrounded by poison, with ``pad`` floats of poison after each row."""

    def __init__(self, *shape: int, pad: int = 5) -> None:
        width = math.prod(shape[1:])
        self.bits = np.full(FRONT + shape[0] * (width + pad) + REAR, POISON)
        inside = self.bits[FRONT : FRONT + shape[0] * (width + pad)].reshape(shape[0], width + pad)[:, :width]
        entry = self.bits.itemsize
        strides = [inside.strides[0], *(entry * math.prod(shape[i + 1 :]) for i in range(1, len(shape)))]
        self.array = np.lib.stride_tricks.as_strided(inside.view(np.float32), shape, strides)

    def assert_intact(self) -> None:
        """Assert that nothing was written outside of the array, and fill the array with poison again."""
        self.array.view(np.uint32)[...] = POISON
        outside = np.flatnonzero(self.bits != POISON)
        assert not outside.size, f"written outside of the array: {outside.size} floats, from {outside[0] - FRONT} on"


def fenced(values: np.ndarray, pad: int = 5) -> np.ndarray:
    """Return a copy of the values that is surrounded by poison."""
    array = Fenced(*values.shape, pad=pad).array
    array[...] = values
    return array


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return normally distributed float32 numbers."""
    return rng.standard_normal(shape, np.float32)


def assert_same_bits(got: np.ndarray, want: np.ndarray, what: str = "result") -> None:
    """Assert that two arrays are equal to the last bit: NaN equals itself, and -0 is not 0."""
    assert got.shape == want.shape, f"{what} has shape {got.shape}; expected {want.shape}"
    different = np.argwhere(_bits(got) != _bits(want))
    assert not len(different), f"{what}: {len(different)} of {want.size} differ, first at {different[0].tolist()}"


def _bits(array: np.ndarray) -> np.ndarray:
    assert array.dtype == np.float32, f"{array.dtype}; expected float32"
    return np.ascontiguousarray(array).view(np.uint32)
