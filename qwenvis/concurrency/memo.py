"""Values computed at first use and kept."""

from __future__ import annotations

import functools
from typing import Any, Self, TypeVar, overload

T = TypeVar("T")


class cached_property(functools.cached_property[T]):
    """`functools.cached_property` without the lock of Python 3.11, which a fork may leave held for ever.

    Two threads may compute a value at the same time; both results are equal. The value is set as an attribute, not
    through ``__dict__``, which two threads of CPython 3.11 must not ask for at the same time (`tasks`).
    """

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> T: ...

    def __get__(self, instance: object, owner: type[Any] | None = None) -> Self | T:
        """Return the value of an instance; from then on its attribute hides this descriptor."""
        if instance is None:
            return self
        value = self.func(instance)
        object.__setattr__(instance, str(self.attrname), value)
        return value
