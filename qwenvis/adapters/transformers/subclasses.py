"""Modules of transformers as objects of a subclass, made when it is needed, of their own class.

A module keeps its place in the model, its name, config, hooks and weights; only the methods of a `Mixin` replace its
own. transformers finds the conversions of a model's weights by the name and the module of its class, so the subclass
has those of its base.
"""

from __future__ import annotations

from functools import cache
from typing import Any


class Mixin:
    """Methods that replace those of a class of transformers."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the mixin and the class of transformers by their names, and the attributes."""
        return _blank, type(self).__bases__, self.__dict__.copy()


@cache
def subclass(mixin: type[Mixin], kind: type) -> type:
    """Return the class ``kind`` with the methods of ``mixin``."""
    return type(kind)(kind.__name__, (mixin, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def original(module: object) -> Any:
    """Return the class of a module in transformers."""
    return type(module).__bases__[1] if isinstance(module, Mixin) else type(module)


def _blank(mixin: type[Mixin], kind: type) -> Any:
    return object.__new__(subclass(mixin, kind))
