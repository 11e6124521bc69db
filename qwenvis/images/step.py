"""Temporal steps: resized frames, which hash to a part of an item's key, or are cut into patches."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qwenvis import ops


class Step(Protocol):
    """One temporal step of an item, before it is cut into patches."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """(1, rows, columns) of patches."""

    @property
    def content(self) -> NDArray[Any]:
        """What the patches are made of, C-contiguous."""

    @property
    def facts(self) -> bytes:
        """What decides the patches besides ``content`` and the grid; equal in all steps of an item."""

    def cut(self, out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Write the patches, (rows·columns, C·T·p²), into ``out`` in merge-block order; return ``out``."""


@dataclass(frozen=True, eq=False)
class PixelStep:
    """The resized frames of one temporal step, and the table that maps each byte to its normalised value.

    - ``content``: the frames, (1 to T, height, width, 3) uint8.
    - ``lut``: (3, 256) float32, the value of each byte of each channel.
    - ``sizes``: patch size, T frames to a step, and merge size; a merge size of 1 orders patches row by row.
    """

    content: NDArray[np.uint8]
    lut: NDArray[np.float32]
    sizes: tuple[int, int, int]

    @property
    def grid(self) -> tuple[int, int, int]:
        """(1, rows, columns) of patches."""
        _, height, width, _ = self.content.shape
        return 1, height // self.sizes[0], width // self.sizes[0]

    @property
    def facts(self) -> bytes:
        """The sizes and the table: all that decides the patches besides ``content`` and the grid."""
        return json.dumps(["pixels", *self.sizes]).encode() + self.lut.tobytes()

    def cut(self, out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Write the patches, (rows·columns, 3·T·p²), into ``out`` in merge-block order; return ``out``."""
        return ops.vol2col(self.content, self.lut, *self.sizes, out)


class StepItem(ABC):
    """An image or a video, planned: an item of a `Plan`, which comes as temporal steps.

    ``grid`` is (temporal steps, rows, columns) of patches.
    """

    grid: tuple[int, int, int]

    @abstractmethod
    def steps(self, first: int, stop: int) -> Iterator[Step]:
        """Decode and resize the temporal steps from ``first`` to ``stop``, and yield them, as `fill` asks for them."""

    def fill(self, first: int, stop: int, out: NDArray[np.float32]) -> tuple[int, int, int]:
        """Write the patches of the temporal steps from ``first`` to ``stop``; return the grid of these steps.

        Calls proceed through the item; ``first`` = 0 starts again. Raises the errors of `steps`.
        """
        top = 0
        for step in self.steps(first, stop):
            step.cut(out[top : (top := top + math.prod(step.grid))])
        return stop - first, *self.grid[1:]
