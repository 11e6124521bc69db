"""The number of threads: the caller's choice, else the CPUs of this process."""

from __future__ import annotations

import math
import operator
import os
from pathlib import Path
from typing import SupportsIndex, cast

from qwenvis.errors import InputError, quoted

VARIABLES = ("QWENVIS_NUM_THREADS", "OMP_NUM_THREADS")
MOST = 1024  # a larger number is a typing error

CGROUP = Path("/sys/fs/cgroup")


def resolve(threads: SupportsIndex | None = None) -> int:
    """Return the argument, else QWENVIS_NUM_THREADS, else OMP_NUM_THREADS, else the number of available CPUs.

    Integers of NumPy are accepted. Raises InputError unless the number is an integer from 1 to ``MOST``.
    """
    if threads is not None:
        return _positive(threads, "threads")
    for name in VARIABLES:
        text = os.environ.get(name, "").split(",")[0].strip()  # OpenMP allows a list, one number per nesting level
        if text:
            number = int(text) if text.isdecimal() and len(text) < 10 else text[:80]
            return _positive(number, f"the environment variable {name}")
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


def _positive(value: object, where: str) -> int:
    """Return an integer type of any library as a positive int; raise InputError for other values."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(cast(SupportsIndex, value))
    except TypeError:
        number = 0
    if not 1 <= number <= MOST:
        raise InputError(f"{where} is {quoted(value)}; expected an integer from 1 to {MOST}")
    return number
