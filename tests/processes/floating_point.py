"""Change the floating-point mode of the calling thread through libm: x86-64 Linux only."""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

AVAILABLE = sys.platform == "linux" and platform.machine() == "x86_64"

# Bits of the control register MXCSR.
FLUSH_TO_ZERO = 0x8040  # subnormal results and operands become zero
ROUND_UP = 0x4000
ROUND_TO_ZERO = 0x6000


class Environment(ctypes.Structure):
    """fenv_t of the x86-64 psABI."""

    _fields_ = (("x87", ctypes.c_uint32 * 7), ("mxcsr", ctypes.c_uint32))


@contextmanager
def mode(bits: int) -> Iterator[None]:
    """Set bits of MXCSR in this thread, inside the block."""
    libm = ctypes.CDLL("libm.so.6")
    before, inside = Environment(), Environment()
    libm.fegetenv(ctypes.byref(before))
    libm.fegetenv(ctypes.byref(inside))
    inside.mxcsr |= bits
    libm.fesetenv(ctypes.byref(inside))
    try:
        yield
    finally:
        libm.fesetenv(ctypes.byref(before))


def signs() -> list[float]:
    """Return numbers that every other mode changes: one is subnormal, one is rounded down, one is rounded up."""
    tiny, one = np.full(1, 1e-20, np.float32), np.ones(1)
    return [float(number[0]) for number in (tiny * tiny, one / 3, one / 10)]
