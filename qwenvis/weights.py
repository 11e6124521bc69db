"""What a tower asks of a checkpoint: each tensor's name, its shape, and who receives it.

A tower is built by asking; nothing is read yet. A checkpoint then holds the whole list against its own tensors,
raises one error if they differ, and only then answers, tensor by tensor (`Checkpoint.load`). A synthetic checkpoint
is made from the same list, so that every tensor is named exactly once in the project: where it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

Receiver = Callable[[np.ndarray], object]
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Request:
    """One tensor: ``name`` below the tower's prefix, the ``shape`` it must have, and ``receive(array)``.

    A receiver raises FloatingPointError where the tensor, or what it makes of it, is not finite.

    ``patches``: how many of them become one row of the tensor's product; 0 for a table, which has no product.
    """

    name: str
    shape: tuple[int, ...]
    receive: Receiver
    patches: int = 1


@dataclass(frozen=True)
class Weights:
    """A place in the tree of names, and the lists of requests and of what is kept that the whole tree shares.

    ``format`` is how the weights of products are to be packed: "f32" or "bf16".
    """

    prefix: str = ""
    format: str = "f32"
    requests: list[Request] = field(default_factory=list)
    kept: list[object] = field(default_factory=list)
    patches: int = 1

    def scope(self, name: object) -> Weights:
        """The place below this one: ``weights.scope("blocks").scope(0)`` asks for ``blocks.0.*``."""
        return replace(self, prefix=f"{self.prefix}{name}.")

    def per(self, patches: int) -> Weights:
        """The same place, for products with one row for so many patches: `Request` says what it means."""
        return replace(self, patches=patches)

    def keep(self, memory: Kept) -> Kept:
        """Note what tensors end up in, an array or a `PackedWeight`, and return it: all of the tower, in one order."""
        self.kept.append(memory)
        return memory

    def ask(self, name: str, shape: tuple[int, ...], receive: Receiver) -> None:
        """Ask for one tensor; ``receive`` gets it in its stored float type, contiguous, and must not keep it."""
        self.requests.append(Request(self.prefix + name, tuple(shape), receive, self.patches))
