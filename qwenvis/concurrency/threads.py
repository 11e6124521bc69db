"""The number of threads: the caller's choice, else the CPUs of this process."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import SupportsIndex

from qwenvis.errors import checked_integer

VARIABLES = ("QWENVIS_NUM_THREADS", "OMP_NUM_THREADS")
MOST = 1024  # a larger number is a typing error

CGROUP = Path("/sys/fs/cgroup")


def resolve(threads: SupportsIndex | None = None) -> int:
    """Return the argument, else QWENVIS_NUM_THREADS, else OMP_NUM_THREADS, else the number of available CPUs.

    Integers of NumPy are accepted. Raises InputError unless the number is an integer from 1 to ``MOST``.
    """
    if threads is not None:
        return checked_integer(threads, "threads", 1, MOST)
    for name in VARIABLES:
        text = os.environ.get(name, "").split(",")[0].strip()  # OpenMP allows a list, one number per nesting level
        if text:
            number = int(text) if text.isdecimal() and len(text) < 10 else text[:80]
            return checked_integer(number, f"the environment variable {name}", 1, MOST)
    return available()


def available() -> int:
    """Return the number of CPUs by affinity and by the quota of the cgroup, which OpenMP ignores."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(affinity, _quota())))


def _quota() -> float:
    """Return the CPU quota of the cgroup (version 2, else version 1) in CPUs; infinity without a limit."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((CGROUP / name).read_text() for name in names).split()
            if float(quota) > 0 and float(period) > 0:
                return float(quota) / float(period)
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return math.inf
