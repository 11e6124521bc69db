"""Plans on their way through the tower; items that turn out to be unusable when they are decoded are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, cast

import numpy as np

from qwenvis import ops
from qwenvis.embeddings import Embeddings
from qwenvis.encoding.batching import Batch, MicroBatch, Plan, prefetched
from qwenvis.encoding.inputs import InputItem, Inputs
from qwenvis.encoding.outputs import Outputs, Progress
from qwenvis.errors import InputError, NumericalError, call_order, without_traceback
from qwenvis.geometry import PATCH_BUDGET, item_bounds, patch_count, span_grid, split_steps
from qwenvis.nn.workspace import Workspaces
from qwenvis.processors.frame_sampling import ASSUMED_FPS
from qwenvis.spec import ModelSpec
from qwenvis.version import __version__
from qwenvis.videos.video import VideoItem


class Runner:
    """The tower of a checkpoint whose weights have been read, with its threads and its workspaces."""

    def __init__(self, spec: ModelSpec, threads: int) -> None:
        self.spec, self.threads, self.isa = spec, threads, ops.isa()
        self._workspaces = Workspaces()

    def begin(
        self,
        inputs: Inputs,
        plan: Plan[InputItem],
        *,
        hidden_states: bool = False,
        progress: Progress | None = None,
        strict: bool = False,
    ) -> Run:
        """Allocate the outputs of a plan, whose items are some of ``inputs``.

        If ``strict``, the run ends at the first item that turns out to be unusable.
        """
        outputs = self._outputs(plan.grid_thw, hidden_states, progress)
        return Run(plan, outputs, lambda: self.provenance | inputs.provenance, self.threads, strict)

    def forward(
        self, pixel_values: np.ndarray, grid_thw: np.ndarray, hidden_states: bool, progress: Progress | None
    ) -> Embeddings:
        """Run the tower on patches (patches, C·T·p²) float32 of a ``grid_thw`` (items, 3) int64, both checked.

        Raises NumericalError.
        """
        outputs = self._outputs(grid_thw, hidden_states, progress)
        top = 0
        for spans in split_steps(grid_thw, PATCH_BUDGET):
            steps = span_grid(grid_thw, spans)
            rows = slice(top, top := top + patch_count(steps))
            with ops.use_threads(self.threads):
                outputs.forward(pixel_values[rows], steps)
        return outputs.embeddings(grid_thw, self.provenance)

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

    def _outputs(self, grid_thw: np.ndarray, hidden_states: bool, progress: Progress | None) -> Outputs:
        return Outputs(self.spec.tower, self._workspaces, grid_thw, hidden_states, progress)


@dataclass
class Run:
    """One plan on its way through the tower. Unusable items leave gaps in the outputs, which `result` drops.

    If ``strict``, the run ends at the first unusable item, and encodes only the items before it.
    """

    plan: Plan[InputItem]
    outputs: Outputs
    provenance: Callable[[], dict[str, str]]
    threads: int
    strict: bool

    def __post_init__(self) -> None:
        self.items = self.plan.items
        self._end = len(self.items)  # the unusable item that ends the run, or the number of items

    def encode_all(self) -> None:
        """Encode the whole plan, one micro-batch at a time, each while the next is prepared."""
        micro_batches = self.plan.micro_batches(PATCH_BUDGET)
        for micro_batch, task in prefetched(micro_batches, PATCH_BUDGET, self.threads):
            batch = task.result()
            self.encode(micro_batch, batch)
            if self._end < len(self.items):
                break
            del task, batch  # frees the patches before the next ones are prepared

    def encode(self, micro_batch: MicroBatch, batch: Batch) -> None:
        """Encode the usable items of a micro-batch."""
        items = [item for item, *_ in micro_batch.spans]
        self._encode_rows(items, batch, range(len(items)))

    def _encode_rows(self, items: Sequence[int], batch: Batch, rows: range) -> None:
        """Encode some rows of ``batch.grid_thw``, one for each of the ``items``, without the unusable items."""
        bounds = item_bounds(batch.grid_thw).tolist()
        for usable, neighbours in groupby(rows, self._usable(items)):
            group = list(neighbours)
            first, stop = group[0], group[-1] + 1
            patches = slice(bounds[first], bounds[stop])
            if not usable:
                self.outputs.skip(patches.stop - patches.start)
                continue
            try:
                with ops.use_threads(self.threads):
                    self.outputs.forward(batch.pixel_values[patches], batch.grid_thw[first:stop])
            except NumericalError as error:
                self._reject(error)
                self._encode_rows(items, batch, range(first, stop))

    def _usable(self, items: Sequence[int]) -> Callable[[int], bool]:
        """Return a predicate: whether the item of a row is to be encoded."""
        unusable = {item for item in items if self.items[item].error is not None}
        if self.strict and unusable:
            self._end = min(self._end, *unusable)
        return lambda row: items[row] < self._end and items[row] not in unusable

    def _reject(self, error: NumericalError) -> None:
        """Mark as unusable the item for which the tower computed NaN or infinity."""
        item = self.items[cast(int, error.index)]
        error.args = (item.place.source + str(error).removeprefix(str(error.source)),)  # its name in the call
        item.place.mark(error)
        item.error = error

    def result(self, errors: Sequence[InputError] = ()) -> Embeddings:
        """Return the items that were encoded; ``errors`` are the errors of items that could not be planned.

        If ``strict``, raises the error that ended the run, whose ``done`` holds the items before.
        """
        used = [i for i, item in enumerate(self.items[: self._end]) if item.error is None]
        provenance = {**self.provenance(), **_video_provenance(self.items)}
        out = self.outputs.embeddings(self.plan.grid_thw, provenance, **_item_fields(self.items))
        if len(used) < len(out):
            out = out[used]
        late = [item.error for item in self.items[: self._end + 1] if item.error is not None]
        if self.strict and late:
            late[0].done = out
            raise late[0]
        return replace(out, errors=tuple(sorted(map(without_traceback, [*errors, *late]), key=call_order)))


def _item_fields(items: Sequence[InputItem]) -> dict[str, Any]:
    """Return the fields of `Embeddings` that say of each item its source and size, and of videos frames and times.

    Frames and times are empty for a still, and left out if all items are still images.
    """
    videos = [each.item if isinstance(each.item, VideoItem) else None for each in items]
    fields: dict[str, Any] = {
        "sources": [each.place.source for each in items],
        "sizes": np.array([each.item.size for each in items], np.int64).reshape(-1, 2),
    }
    if any(videos):
        fields |= {
            "frame_indices": [np.zeros(0, np.int64) if video is None else video.frame_indices for video in videos],
            "timestamps": [np.zeros(0) if video is None else video.timestamps for video in videos],
            "second_per_grid_ts": np.array([0.0 if video is None else video.second_per_grid for video in videos]),
        }
    return fields


def _video_provenance(items: Sequence[InputItem]) -> dict[str, str]:
    """Return the provenance of the usable videos: whether a rate was assumed, and the number of damaged frames."""
    videos = [each.item for each in items if isinstance(each.item, VideoItem) and each.error is None]
    facts: dict[str, str] = {}
    if any(not video.video.length.fps for video in videos):
        facts["video_fps"] = f"{ASSUMED_FPS} (assumed)"
    if damaged := sum(video.damaged for video in videos):
        facts["damaged_frames"] = str(damaged)
    return facts
