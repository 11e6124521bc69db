"""Modules of transformers that become objects of a subclass of their class.

A module keeps its place in the model, its name, config, hooks and weights; the methods of a `Mixin` come before its
own. transformers finds the conversions of a model's weights by the name and the module of its class, so a subclass has
those of its base.
"""

from __future__ import annotations

from functools import cache
from typing import Any

Module: Any = object  # for the types: a mixin has the attributes of a class of transformers


class Mixin(Module):  # type: ignore[misc]
    """Methods that come before those of a class of transformers."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the mixin and the class of transformers by their names, and the attributes."""
        return _blank, type(self).__bases__, self.__dict__.copy()


def subclass(mixin: Any, kind: Any) -> Any:
    """Return the subclass of ``kind``, a class of transformers, with the methods of ``mixin``."""
    return _subclass(mixin, kind)


@cache
def _subclass(mixin: Any, kind: Any) -> Any:
    return type(kind)(kind.__name__, (mixin, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def original(module: Any) -> Any:
    """Return the class of a module in transformers."""
    return type(module).__bases__[1] if isinstance(module, Mixin) else type(module)


def _blank(mixin: Any, kind: Any) -> Any:
    made = subclass(mixin, kind)
    return made.__new__(made)
