"""Patches that a caller has cut: each row of ``grid_thw`` planned as an item."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from qwenvis.encoding.batching import Plan
from qwenvis.encoding.items import Call, CallItem
from qwenvis.errors import Place
from qwenvis.geometry import item_bounds


@dataclass(frozen=True, eq=False)
class PatchStep:
    """The patches of one temporal step: ``content`` (rows·columns, C·T·p²) float32, and their ``grid``."""

    content: NDArray[np.float32]
    grid: tuple[int, int, int]
    facts: bytes = b"patches"

    def cut(self, out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``out``, the part of the caller's patches that is ``content``."""
        return out


class PatchItem(CallItem):
    """The patches of one item."""

    def __init__(self, call: Call, row: int, grid: tuple[int, int, int], patches: NDArray[np.float32]) -> None:
        """Take the ``patches`` of a ``row`` of ``grid_thw``, which is ``grid``."""
        super().__init__(call, Place("pixel_values", row, f"item {row}"))
        self.grid, self._patches = grid, patches

    def read(self, first: int, stop: int) -> Iterator[PatchStep]:
        """Yield the temporal steps from ``first`` to ``stop``."""
        rows = math.prod(self.grid[1:])
        for step in range(first, stop):
            yield PatchStep(self._patches[step * rows : (step + 1) * rows], (1, *self.grid[1:]))


def plan_patches(call: Call, pixel_values: NDArray[np.float32], grid_thw: NDArray[np.int64]) -> Plan[PatchItem]:
    """Plan the items of ``pixel_values`` (patches, C·T·p²) and ``grid_thw`` (items, 3), both checked."""
    bounds = item_bounds(grid_thw).tolist()
    parts = [pixel_values[first:stop] for first, stop in pairwise(bounds)]
    grids = map(tuple, grid_thw.tolist())
    items = [PatchItem(call, row, *item) for row, item in enumerate(zip(grids, parts, strict=True))]
    return Plan(items, pixel_values.shape[1], pixel_values)
