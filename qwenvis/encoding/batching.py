"""Items on their way to the tower: planned from their headers, then prepared, some temporal steps at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qwenvis import ops
from qwenvis.concurrency import tasks
from qwenvis.concurrency.tasks import Task
from qwenvis.geometry import Span, item_bounds, spanned, spans


class Item(Protocol):
    """What becomes one row of ``grid_thw``: a still image or a clip, whose pixels are not there yet."""

    grid: tuple[int, int, int]  # temporal steps, rows and columns of patches, as far as the header tells

    def fill(self, first: int, stop: int, out: NDArray[np.float32]) -> tuple[int, int, int]:
        """Write the patches of the temporal steps from first to stop; return their grid (stop - first, rows, columns).

        Steps are asked for in rising order; a ``first`` of 0 begins anew. The grid may differ from the planned one, if
        it has as many patches. Raises a QwenvisError that names the item.
        """


class Plan:
    """Items in order, and their ``grid_thw`` (items, 3) int64, which is as planned until they are prepared."""

    def __init__(self, items: Sequence[Item], columns: int) -> None:
        """``columns`` are those of ``pixel_values``."""
        self.items, self.columns = items, columns
        self.grid_thw = np.array([item.grid for item in items], np.int64).reshape(-1, 3)

    def parts(self, budget: int) -> list[StepRun]:
        """Runs of temporal steps of at most ``budget`` patches, or of one step."""
        return [StepRun(self, run) for run in spans(self.grid_thw, budget)]

    def prepare(self, threads: int = 1) -> Batch:
        """All of it at once."""
        return StepRun(self, [(i, 0, t) for i, t in enumerate(self.grid_thw[:, 0].tolist())]).prepare(threads)


@dataclass(frozen=True)
class StepRun:
    """What one forward pass takes of a plan."""

    plan: Plan
    spans: list[Span]

    @property
    def patches(self) -> int:
        """Rows of ``pixel_values``."""
        return int(spanned(self.plan.grid_thw, self.spans).prod(axis=1).sum())

    @property
    def first(self) -> bool:
        """Whether it begins the plan."""
        return not self.spans or self.spans[0][:2] == (0, 0)

    @property
    def last(self) -> bool:
        """Whether it ends the plan."""
        grid = self.plan.grid_thw
        return not self.spans or self.spans[-1][::2] == (len(grid) - 1, grid[-1, 0])

    def prepare(self, threads: int = 1) -> Batch:
        """The patches of its steps; each item of the plan gets its final grid.

        Several items are prepared at the same time, each on a thread of its own; a single one has them all. Of several
        that fail, the first one's error is raised.
        """
        grid = spanned(self.plan.grid_thw, self.spans)
        values = np.empty((self.patches, self.plan.columns), np.float32)
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


def ahead(parts: Iterable[StepRun], budget: int, threads: int) -> Iterator[tuple[StepRun, Task[Batch]]]:
    """Each part with its batch, which is prepared on ``threads`` while the one before is used.

    One above the budget waits until then, so that no two of them are in memory. An error of ``parts`` comes after the
    parts before it.
    """
    calls = ((part, partial(part.prepare, threads)) for part in parts)
    return tasks.prefetch(calls, lambda part: part.patches <= budget)


@dataclass(frozen=True, eq=False)
class Batch:
    """Preprocessed images, as transformers' processors return them; ``encoder(*batch)`` encodes them.

    ``pixel_values`` (patches, C·T·p²) float32, rows in merge-block order; ``grid_thw`` (items, 3) int64.
    """

    pixel_values: NDArray[np.float32]
    grid_thw: NDArray[np.int64]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Both, in the order of the encoder's arguments."""
        return iter((self.pixel_values, self.grid_thw))
