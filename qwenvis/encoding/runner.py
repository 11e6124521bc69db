"""Plans on their way through the tower; items that turn out to be unusable when they are decoded are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

import numpy as np

from qwenvis import ops
from qwenvis.cache import Cache
from qwenvis.embeddings import Embeddings
from qwenvis.embeddings.keys import UNKNOWN
from qwenvis.encoding.batching import Batch, MicroBatch, Plan, prefetched
from qwenvis.encoding.inputs import Inputs
from qwenvis.encoding.items import Call, CallItem
from qwenvis.encoding.keying import Identity, Keying
from qwenvis.encoding.outputs import Outputs, Progress
from qwenvis.encoding.patches import PatchPlan
from qwenvis.errors import InputError, NumericalError, call_order, without_traceback
from qwenvis.geometry import PATCH_BUDGET, Span, item_bounds
from qwenvis.nn.workspace import Workspaces
from qwenvis.spec import ModelSpec
from qwenvis.version import __version__
from qwenvis.videos.video import Sampling


class Runner:
    """The tower of a checkpoint whose weights have been read, with its threads and its workspaces."""

    def __init__(self, spec: ModelSpec, threads: int, cache: Cache | None = None) -> None:
        self.spec, self.threads, self.cache, self.isa = spec, threads, cache, ops.isa()
        self._identity, self._workspaces = Identity(spec, self.isa, threads), Workspaces()

    def forward(
        self, pixel_values: np.ndarray, grid_thw: np.ndarray, hidden_states: bool, progress: Progress | None
    ) -> Embeddings:
        """Encode patches (patches, C·T·p²) float32 of a ``grid_thw`` (items, 3) int64, both checked.

        Raises NumericalError.
        """
        call = Call(self.keying(hidden_states))
        plan = PatchPlan(call, pixel_values, grid_thw)
        run = self.begin(call, plan, hidden_states=hidden_states, progress=progress, strict=True)
        return run.encode_all()

    def keying(self, hidden_states: bool = False) -> Keying:
        """Return the keys and the cache of one call, which does without the cache if it keeps hidden states."""
        return Keying(self._identity, self.spec.config, None if hidden_states else self.cache)

    def inputs(
        self, sampling: Sampling, min_pixels: int | None, max_pixels: int | None, keying: Keying | None = None
    ) -> Inputs:
        """Return the inputs of a call with these arguments, which get keys if there is a ``keying``."""
        limits = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        return Inputs(self.spec, sampling, **limits, threads=self.threads, keying=keying)

    def begin(
        self,
        call: Call,
        plan: Plan[Any],
        *,
        hidden_states: bool = False,
        progress: Progress | None = None,
        strict: bool = False,
    ) -> Run:
        """Allocate the outputs of a plan, whose items are some of the ``call``.

        If ``strict``, the run ends at the first item that turns out to be unusable.
        """
        outputs = Outputs(self.spec.tower, self._workspaces, plan.grid_thw, hidden_states, progress)
        return Run(self, call, plan, outputs, strict)

    @property
    def provenance(self) -> dict[str, str]:
        """The facts about the tower that the results record."""
        return {
            "source": str(self.spec.checkpoint.path.absolute()),
            "family": self.spec.family,
            "format": self.spec.format,
            "isa": self.isa,
            "qwenvis_version": __version__,
        }


@dataclass
class Run:
    """One plan on its way through the tower. Unusable items leave gaps in the outputs, which `result` drops.

    If ``strict``, the run ends at the first unusable item, and encodes only the items before it.
    """

    runner: Runner
    call: Call
    plan: Plan[Any]
    outputs: Outputs
    strict: bool

    def __post_init__(self) -> None:
        self.items: Sequence[CallItem] = self.plan.items
        self._end = len(self.items)  # the unusable item that ends the run, or the number of items

    def encode_all(self, errors: Sequence[InputError] = ()) -> Embeddings:
        """Encode the whole plan, one micro-batch at a time, each while the next is prepared; return `result`."""
        micro_batches = self.plan.micro_batches(PATCH_BUDGET)
        try:
            for micro_batch, task in prefetched(micro_batches, PATCH_BUDGET, self.runner.threads):
                batch = task.result()
                self.encode(micro_batch, batch)
                if self._end < len(self.items):
                    break
                del task, batch  # frees the patches before the next ones are prepared
        finally:
            self.call.finish()
        return self.result(errors)

    def encode(self, micro_batch: MicroBatch, batch: Batch) -> None:
        """Encode the usable items of a micro-batch that the cache lacks, and store those that are complete."""
        self._encode_rows(micro_batch.spans, batch, range(len(micro_batch.spans)))
        keying = self.call.keying
        if keying is not None and keying.cache is not None:
            steps = self.plan.grid_thw[:, 0]
            complete = [number for number, _, stop in micro_batch.spans if stop == steps[number]]
            keying.store([self._single(number) for number in complete if self._state(number) == "missing"])
            for number in complete:
                self.items[number].found = None  # its tokens have been copied

    def _encode_rows(self, spans: Sequence[Span], batch: Batch, rows: range) -> None:
        """Encode some rows of ``batch.grid_thw``, one for each of the ``spans``, if they are to be encoded."""
        bounds = item_bounds(batch.grid_thw).tolist()
        self._end_at_error(spans)
        for state, neighbours in groupby(rows, lambda row: self._state(spans[row][0])):
            group = list(neighbours)
            first, stop = group[0], group[-1] + 1
            patches = slice(bounds[first], bounds[stop])
            if state == "unusable":
                self.outputs.skip(patches.stop - patches.start)
            elif state == "found":
                for item, *steps in spans[first:stop]:
                    self.outputs.take(cast(Embeddings, self.items[item].found), *steps)
            else:
                try:
                    with ops.use_threads(self.runner.threads):
                        self.outputs.forward(batch.pixel_values[patches], batch.grid_thw[first:stop])
                except NumericalError as error:
                    self._reject(error)
                    self._encode_rows(spans, batch, range(first, stop))

    def _end_at_error(self, spans: Sequence[Span]) -> None:
        """End a strict run at its first unusable item."""
        if self.strict:
            self._end = min([self._end, *(item for item, *_ in spans if self.items[item].error is not None)])

    def _is_used(self, number: int) -> bool:
        """Return whether an item is usable, and before the end of the run."""
        return number < self._end and self.items[number].error is None

    def _state(self, number: int) -> str:
        """Return what to do with an item: "unusable", "found" in the cache, or "missing" there."""
        if not self._is_used(number):
            return "unusable"
        return "found" if self.items[number].hit else "missing"

    def _reject(self, error: NumericalError) -> None:
        """Mark as unusable the item for which the tower computed NaN or infinity."""
        item = self.items[cast(int, error.index)]
        item.place.claim(error)
        item.error = error

    def result(self, errors: Sequence[InputError] = ()) -> Embeddings:
        """Return the items that were encoded; ``errors`` are the errors of items that could not be planned.

        If ``strict``, raises the error that ended the run, whose ``done`` holds the items before.
        """
        used = [number for number in range(len(self.items)) if self._is_used(number)]
        out = self.outputs.embeddings(self.plan.grid_thw, **self._fields(self.items))
        if len(used) < len(out):
            out = out[used]
        late = [item.error for item in self.items[: self._end + 1] if item.error is not None]
        if self.strict and late:
            late[0].done = out
            raise late[0]
        return out._with(errors=tuple(sorted(map(without_traceback, [*errors, *late]), key=call_order)))

    def _single(self, number: int) -> Embeddings:
        """Return one item that has been encoded, whose arrays are views."""
        return self.outputs.single(number, self.plan.grid_thw, **self._fields([self.items[number]]))

    def _fields(self, items: Sequence[CallItem]) -> dict[str, Any]:
        """Return the fields of `Embeddings` about some items, other than arrays of tokens."""
        provenance = {**self.runner.provenance, **self.call.provenance(items)}
        return {"provenance": provenance, **_item_fields(items)}


def _item_fields(items: Sequence[CallItem]) -> dict[str, Any]:
    """Return the fields of `Embeddings` that say of each item its source, size and key, and of videos frames and times.

    Frames and times are left out if all items are still images.
    """
    fields: dict[str, Any] = {
        "sources": [each.place.source for each in items],
        "sizes": np.array([each.size for each in items], np.int64).reshape(-1, 2),
        "_keys": [each.key or UNKNOWN for each in items],
    }
    times = [each.times for each in items]
    if any(len(each.frame_indices) for each in times):
        fields |= {
            "frame_indices": [each.frame_indices for each in times],
            "timestamps": [each.timestamps for each in times],
            "second_per_grid_ts": np.array([each.second_per_grid_ts for each in times]),
        }
    return fields
