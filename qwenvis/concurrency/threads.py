"""How many threads to use: what was asked for, else what this process may have."""

from __future__ import annotations

import math
import operator
import os
from pathlib import Path
from typing import SupportsIndex, cast

from qwenvis.errors import InputError, quoted

VARIABLES = ("QWENVIS_NUM_THREADS", "OMP_NUM_THREADS")
MOST = 1024  # more is a slip of the keyboard

CGROUP = Path("/sys/fs/cgroup")


def resolve(threads: SupportsIndex | None = None) -> int:
    """Threads: the argument, else QWENVIS_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs that may be used.

    An integer of NumPy's will do. Raises InputError for what is no positive integer.
    """
    if threads is not None:
        return _positive(threads, "threads")
    for name in VARIABLES:
        text = os.environ.get(name, "").split(",")[0].strip()  # OpenMP allows a list, one count a nesting level
        if text:
            number = int(text) if text.isdecimal() and len(text) < 10 else text[:80]
            return _positive(number, f"the environment variable {name}")
    return available()


def available() -> int:
    """CPUs that this process may use: its affinity, and the quota of its cgroup, which OpenMP does not consult."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(affinity, _quota())))


def _quota() -> float:
    """CPUs' worth of time that the cgroup grants (version 2, else version 1); infinity where it sets no limit."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((CGROUP / name).read_text() for name in names).split()
            if float(quota) > 0 and float(period) > 0:
                return float(quota) / float(period)
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return math.inf


def _positive(value: object, where: str) -> int:
    """An integer of any library, as a count."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(cast(SupportsIndex, value))
    except TypeError:
        number = 0
    if not 1 <= number <= MOST:
        raise InputError(f"{where} is {quoted(value)}; expected an integer from 1 to {MOST}")
    return number
