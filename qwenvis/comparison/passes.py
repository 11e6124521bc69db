"""One pass of a plan through a tower, in a number format or in transformers; all outputs are passed on as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from qwenvis import ops
from qwenvis.encoding.batching import Batch, MicroBatch, Plan, prefetched
from qwenvis.encoding.inputs import InputItem
from qwenvis.encoding.outputs import Outputs
from qwenvis.errors import NumericalError
from qwenvis.geometry import PATCH_BUDGET, item_bounds, span_grid
from qwenvis.nn.workspace import Workspaces
from qwenvis.spec import ModelSpec


class Stage(NamedTuple):
    """An output of a tower by its ``kind`` and its ``number`` in that kind.

    Of the ``layers``, number 0 is the patch embedding and number i + 1 block i. A language model gets ``tokens``, whose
    number is 0, and each array of ``deepstack``.
    """

    kind: str
    number: int = 0

    @property
    def name(self) -> str:
        """The name in tables: patch embedding, block 0, tokens, deepstack 0."""
        if self.kind == "layers":
            return f"block {self.number - 1}" if self.number else "patch embedding"
        return self.kind if self.kind == "tokens" else f"{self.kind} {self.number}"


# visit(micro_batch, stage, array): an output (rows, width) float32 of a micro-batch, C-contiguous. Its rows are in the
# order of the items; those of layers are in the order in which the tower computes them, whatever its format.
Visit = Callable[[MicroBatch, Stage, NDArray[np.float32]], object]
Watch = Callable[[Stage, NDArray[np.float32]], object]


class Watched(Outputs):
    """The outputs of one micro-batch, whose hidden states are passed on instead of being kept."""

    def __init__(self, spec: ModelSpec, workspaces: Workspaces, batch: Batch, watch: Watch) -> None:
        """``watch(stage, array)`` gets the hidden states after each layer."""
        super().__init__(spec.tower, workspaces, batch.grid_thw, hidden_states=False, progress=None)
        self._watch = watch

    def keep(self, layer: int, rows: np.ndarray, x: np.ndarray) -> None:
        """Pass the output of a layer on."""
        self._watch(Stage("layers", layer), np.ascontiguousarray(x))


def encode(spec: ModelSpec, threads: int, plan: Plan[InputItem], visit: Visit) -> None:
    """Run a plan through the tower of a spec, in its format; ``visit`` gets hidden states, tokens and deepstack.

    The weights are read anew, and dropped at the end. Raises the error of an item that cannot be used, NumericalError
    for an item that becomes NaN or infinite, and the errors of `Encoder.from_spec`.
    """
    own, workspaces = spec.with_dtype(spec.dtype), Workspaces()
    with ops.use_threads(threads):
        own.checkpoint.fill(own.weights)
    for micro_batch, batch in _batches(plan, threads):
        watch = partial(visit, micro_batch)
        outputs = Watched(own, workspaces, batch, watch)
        try:
            with ops.use_threads(threads):
                outputs.forward(batch.pixel_values, batch.grid_thw)
        except NumericalError as error:
            item, *_ = micro_batch.spans[cast(int, error.index)]
            plan.items[item].place.claim(error)
            error.args = (f"{error} (in {own.dtype})",)
            raise
        _pass_on([outputs.tokens, *outputs.deepstack], watch)


def encode_in_transformers(spec: ModelSpec, threads: int, plan: Plan[InputItem], visit: Visit) -> None:
    """Run a plan through the tower of transformers, in float32; ``visit`` gets tokens and deepstack.

    Raises PackageError without transformers, or with one that lacks the family, and the errors of `encode`.
    """
    from qwenvis.adapters.transformers.reference import Reference

    tower = Reference(spec, threads)
    for micro_batch, batch in _batches(plan, threads):
        arrays = tower(batch.pixel_values, batch.grid_thw)
        for item, rows in item_rows(micro_batch, spec.config.merge_unit):
            if not all(ops.all_finite(array[rows]) for array in arrays):
                place = plan.items[item].place
                error = NumericalError(f"{place.source} is NaN or infinite in transformers")
                place.mark(error)
                raise error
        _pass_on(arrays, partial(visit, micro_batch))


def item_rows(micro_batch: MicroBatch, patches: int) -> Iterator[tuple[int, slice]]:
    """Yield the number in the plan of each item of a micro-batch, and its rows, of ``patches`` patches each."""
    bounds = item_bounds(span_grid(micro_batch.plan.grid_thw, micro_batch.spans)) // patches
    for (item, *_), rows in zip(micro_batch.spans, pairwise(bounds.tolist()), strict=True):
        yield item, slice(*rows)


def _batches(plan: Plan[InputItem], threads: int) -> Iterator[tuple[MicroBatch, Batch]]:
    """Yield the micro-batches of a plan with their patches. Raises the error of an item that cannot be used."""
    for micro_batch, task in prefetched(plan.micro_batches(PATCH_BUDGET), PATCH_BUDGET, threads):
        batch = task.result()
        for item, *_ in micro_batch.spans:
            if (error := plan.items[item].error) is not None:
                raise error
        yield micro_batch, batch


def _pass_on(arrays: Sequence[NDArray[np.float32]], watch: Watch) -> None:
    """Pass on tokens, and the arrays of deepstack after them."""
    tokens, *deepstack = arrays
    watch(Stage("tokens"), tokens)
    for number, array in enumerate(deepstack):
        watch(Stage("deepstack", number), array)
