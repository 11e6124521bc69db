"""The memory that the C library keeps after it was freed, of short threads that come and go."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt, from malloc.h.
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8

LARGE = 1 << 20  # bytes: from here on, a block is mapped by itself, and returned to the system when it is freed
ARENAS = 2


def keep_little() -> None:
    """Tell glibc's malloc to return large blocks to the system, for the whole process.

    Each thread may get an arena of its own, which is kept when the thread ends, with space for the largest block that
    was ever freed: threads that prepare images one after the other leave 16 arenas of tens of megabytes. Other C
    libraries keep less, and are left alone.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, LARGE)
            mallopt(M_ARENA_MAX, ARENAS)
