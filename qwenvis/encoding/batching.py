"""Planned items cut into micro-batches, and the patches of each micro-batch prepared while the tower is busy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from qwenvis import ops
from qwenvis.concurrency import tasks
from qwenvis.concurrency.tasks import Task
from qwenvis.geometry import Span, item_bounds, patch_count, span_grid, split_steps


@dataclass(frozen=True, eq=False)
class Batch:
    """Preprocessed images and videos, as transformers' processors return them; ``encoder(*batch)`` encodes them.

    - ``pixel_values``: (patches, C·T·p²) float32, with C channels, T frames and p x p pixels to a patch; rows in
      merge-block order, item after item.
    - ``grid_thw``: (items, 3) int64, the temporal steps, rows and columns of patches of each item.
    """

    pixel_values: NDArray[np.float32]
    grid_thw: NDArray[np.int64]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield ``pixel_values`` and ``grid_thw``, in the order of the encoder's arguments."""
        return iter((self.pixel_values, self.grid_thw))


class Item(Protocol):
    """An image or a video that becomes one row of ``grid_thw``; its pixels are read when `fill` is called."""

    grid: tuple[int, int, int]  # temporal steps, rows and columns of patches, as far as the header tells

    def fill(self, first: int, stop: int, out: NDArray[np.float32]) -> tuple[int, int, int]:
        """Write the patches of the temporal steps from first to stop; return their grid (stop - first, rows, columns).

        Calls ask for steps in rising order; a ``first`` of 0 starts again. The grid may differ from the planned grid if
        both have the same number of patches. Raises a QwenvisError that names the item.
        """


ItemT = TypeVar("ItemT", bound=Item)


class Plan(Generic[ItemT]):
    """Items in order, and their ``grid_thw`` (items, 3) int64, in which `prepare` may still swap rows and columns."""

    def __init__(self, items: Sequence[ItemT], columns: int) -> None:
        """Plan the items; ``columns`` is the length of a row of ``pixel_values``."""
        self.items, self.columns = items, columns
        self.grid_thw = np.array([item.grid for item in items], np.int64).reshape(-1, 3)

    def micro_batches(self, budget: int) -> list[MicroBatch]:
        """Split the plan into micro-batches of at most ``budget`` patches, or of a single temporal step."""
        return [MicroBatch(self, spans) for spans in split_steps(self.grid_thw, budget)]

    def prepare(self, threads: int = 1) -> Batch:
        """Prepare the whole plan as one batch; raises as `MicroBatch.prepare`."""
        return MicroBatch(self, [(i, 0, t) for i, t in enumerate(self.grid_thw[:, 0].tolist())]).prepare(threads)

    def rows(self, micro_batch: MicroBatch) -> NDArray[np.float32]:
        """Return the array that the items of a micro-batch fill: its ``pixel_values``."""
        return np.empty((micro_batch.patches, self.columns), np.float32)


@dataclass(frozen=True)
class MicroBatch:
    """The part of a plan that goes through the tower in one forward pass: spans of temporal steps, item after item."""

    plan: Plan[Any]
    spans: list[Span]

    @property
    def patches(self) -> int:
        """The number of patches: the rows of its ``pixel_values``."""
        return patch_count(span_grid(self.plan.grid_thw, self.spans))

    @property
    def first(self) -> bool:
        """Whether this is the first micro-batch of its plan."""
        return not self.spans or self.spans[0][:2] == (0, 0)

    @property
    def last(self) -> bool:
        """Whether this is the last micro-batch of its plan."""
        grid = self.plan.grid_thw
        return not self.spans or self.spans[-1][::2] == (len(grid) - 1, grid[-1, 0])

    def prepare(self, threads: int = 1) -> Batch:
        """Prepare the patches of all spans, and give the items of the plan their final grids.

        Several items are prepared at the same time, on one thread each; a single item uses all threads. If several
        items fail, the error of the first one is raised.
        """
        grid = span_grid(self.plan.grid_thw, self.spans)
        values = self.plan.rows(self)
        bounds = item_bounds(grid)

        def fill(row: int, threads: int) -> None:
            item, first, stop = self.spans[row]
            with ops.use_threads(threads):
                grid[row] = self.plan.items[item].fill(first, stop, values[bounds[row] : bounds[row + 1]])
            self.plan.grid_thw[item, 1:] = grid[row, 1:]

        if threads == 1 or len(self.spans) == 1:
            for row in range(len(self.spans)):
                fill(row, threads)
        else:
            list(tasks.run_parallel([partial(fill, row, 1) for row in range(len(self.spans))], threads))
        return Batch(values, grid)


def prefetched(
    micro_batches: Iterable[MicroBatch], budget: int, threads: int
) -> Iterator[tuple[MicroBatch, Task[Batch]]]:
    """Yield each micro-batch with its batch, which is prepared on ``threads`` while the previous batch is encoded.

    A micro-batch of more than ``budget`` patches is prepared only after that, so that memory never holds two of them.
    An error of the iterable ``micro_batches`` is raised after the micro-batches before it.
    """
    calls = ((micro_batch, partial(micro_batch.prepare, threads)) for micro_batch in micro_batches)
    return tasks.prefetch(calls, lambda micro_batch: micro_batch.patches <= budget)
