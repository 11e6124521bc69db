"""Patches that a caller has cut: each row of ``grid_thw`` planned as an item. Micro-batches are views of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from qwenvis.encoding.batching import MicroBatch, Plan
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
        """Return ``out``, which is ``content`` in the micro-batches of a `PatchPlan`."""
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


class PatchPlan(Plan[PatchItem]):
    """The items of ``pixel_values``, whose micro-batches are views: no patch is copied."""

    def __init__(self, call: Call, pixel_values: NDArray[np.float32], grid_thw: NDArray[np.int64]) -> None:
        """Plan ``pixel_values`` (patches, C·T·p²) and ``grid_thw`` (items, 3), both checked."""
        parts = [pixel_values[first:stop] for first, stop in pairwise(item_bounds(grid_thw).tolist())]
        grids = map(tuple, grid_thw.tolist())
        items = [PatchItem(call, row, *item) for row, item in enumerate(zip(grids, parts, strict=True))]
        super().__init__(items, pixel_values.shape[1])
        self._pixel_values = pixel_values

    def rows(self, micro_batch: MicroBatch) -> NDArray[np.float32]:
        """Return the patches of a micro-batch, whose spans follow one another."""
        item, first, _ = micro_batch.spans[0]
        top = int(item_bounds(self.grid_thw)[item]) + first * math.prod(self.grid_thw[item, 1:].tolist())
        return self._pixel_values[top : top + micro_batch.patches]
