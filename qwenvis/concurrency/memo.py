"""Values that are computed when they are first asked for, and kept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

T = TypeVar("T")


class cached_property(functools.cached_property[T]):
    """As that of functools, without the lock of Python 3.11: a fork may leave it held for ever, in all instances.

    Two threads may compute a value at the same time; they compute the same.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        super().__init__(compute)
        self.lock = nullcontext()
