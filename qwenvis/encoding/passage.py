"""A plan on its way through the tower; items that turn out to be unusable when they are decoded are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, cast

import numpy as np

from qwenvis import ops
from qwenvis.embeddings import Embeddings
from qwenvis.encoding.batching import Batch, Plan, StepRun, ahead
from qwenvis.encoding.inputs import Entry, origins, remarks
from qwenvis.encoding.outputs import Outputs
from qwenvis.errors import InputError, NumericalError, call_order, detached
from qwenvis.geometry import item_bounds


class Passage:
    """Feeds the work of a plan with its parts, in order; unusable items leave a gap in the arrays.

    ``strict``: the passage ends at the first unusable item, and encodes only the items before it.
    """

    def __init__(self, entries: Sequence[Entry], plan: Plan, work: Outputs, *, strict: bool, threads: int) -> None:
        """Take entries, the plan of their items, and the work that holds its tokens."""
        self.plan, self.work = plan, work
        self._entries, self._strict, self._threads = entries, strict, threads
        self._end = len(entries)  # the first item that is left out because it ends the passage

    def run(self, budget: int) -> None:
        """Encode the whole plan by a budget of patches, each part while the next is prepared."""
        for part, coming in ahead(self.plan.parts(budget), budget, self._threads):
            batch = coming.result()
            if not self.add(part, batch):
                break
            del coming, batch  # and its patches, before the next ones are made

    def add(self, part: StepRun, batch: Batch) -> bool:
        """Encode the usable items of a part; return whether to go on."""
        items = [item for item, *_ in part.spans]
        self._encode(items, batch, range(len(items)))
        return self._end == len(self._entries)

    def _encode(self, items: Sequence[int], batch: Batch, rows: range) -> None:
        """Encode some rows of a batch, one row an item, without the rows of unusable items."""
        bounds = item_bounds(batch.grid_thw).tolist()
        for used, run in groupby(rows, self._usable(items)):
            spans = list(run)
            first, stop = spans[0], spans[-1] + 1
            patches = slice(bounds[first], bounds[stop])
            if not used:
                self.work.leave_out(patches.stop - patches.start)
                continue
            try:
                with ops.use_threads(self._threads):
                    self.work.add(batch.pixel_values[patches], batch.grid_thw[first:stop])
            except NumericalError as error:
                self._refuse(error)
                self._encode(items, batch, range(first, stop))

    def _usable(self, items: Sequence[int]) -> Callable[[int], bool]:
        """Return a function that says of a row whether to encode its item."""
        left_out = {item for item in items if self._entries[item].error is not None}
        if self._strict and left_out:
            self._end = min(self._end, *left_out)
        return lambda row: items[row] < self._end and items[row] not in left_out

    def _refuse(self, error: NumericalError) -> None:
        """Leave out the item for which the tower computed NaN or infinity."""
        entry = self._entries[cast(int, error.index)]
        error.args = (entry.place.source + str(error).removeprefix(str(error.source)),)  # by its name in the call
        entry.place.mark(error)
        entry.error = error

    def result(self, provenance: dict[str, str], errors: Sequence[InputError] = ()) -> Embeddings:
        """The items that were encoded; ``errors`` are those of items that could not be planned.

        If the passage is strict, raises the error that ended it, with the items before as its ``done``.
        """
        used = [i for i, entry in enumerate(self._entries[: self._end]) if entry.error is None]
        told = {**provenance, **remarks(self._entries)}
        out = finished(self.work, self.plan.grid_thw, told, **origins(self._entries))
        if len(used) < len(out):
            out = out[used]
        late = [entry.error for entry in self._entries[: self._end + 1] if entry.error is not None]
        if self._strict and late:
            late[0].done = out
            raise late[0]
        return replace(out, errors=tuple(sorted(map(detached, [*errors, *late]), key=call_order)))


def finished(work: Outputs, grid_thw: np.ndarray, provenance: dict[str, str], **told: Any) -> Embeddings:
    """The result of the forward passes of a call."""
    merge_size = work.tower.config.spatial_merge_size
    return Embeddings(work.tokens, grid_thw.copy(), merge_size, work.hidden_states, provenance, work.deepstack, **told)
