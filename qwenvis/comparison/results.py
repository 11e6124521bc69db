"""The result of a comparison, and the tallies that it is made of."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwenvis.comparison.deviation import Deviation, Reals, RowErrors, Tally
from qwenvis.comparison.passes import Stage, item_rows
from qwenvis.encoding.batching import MicroBatch
from qwenvis.encoding.inputs import InputItem
from qwenvis.models import Config


@dataclass(frozen=True, eq=False)
class ItemComparison:
    """How far the results of one image or video are from the reference.

    - ``source``: the name of the item, as in `Embeddings.sources`.
    - ``grid_thw``: the temporal steps, rows and columns of its patches.
    - ``tokens``: the `Deviation` of its tokens, whose rows are those of `Embeddings.embeddings`.
    - ``deepstack``: the `Deviation` of each array of deepstack; empty in families without deepstack.
    - ``token_errors``: (steps, rows, columns) float64, for each token in its place the length of its error, relative to
      the root mean square of the lengths of the reference's tokens: |a_i - b_i| / sqrt(mean_j |b_j|^2). The root mean
      square of these numbers is ``tokens.relative_rms``.
    """

    source: str
    grid_thw: tuple[int, int, int]
    tokens: Deviation
    deepstack: tuple[Deviation, ...]
    token_errors: NDArray[np.float64]

    @property
    def relative_rms(self) -> float:
        """The larger of the relative RMS errors of tokens and deepstack."""
        return max(each.relative_rms for each in (self.tokens, *self.deepstack))


@dataclass(frozen=True, eq=False)
class Comparison:
    """How far the results of a checkpoint in one format are from a reference: the result of `compare`.

    - ``dtype``: the dtype of the format, such as "bfloat16".
    - ``against``: the reference: a dtype, or "transformers".
    - ``tokens``, ``deepstack``: the `Deviation` of the tokens of all items, and of each array of deepstack.
    - ``layers``: the `Deviation` of the hidden states of all items after the patch embedding and after each block,
      depth + 1 in all, whose rows are patches; empty against transformers.
    - ``items``: an `ItemComparison` for each image and video, images first.
    """

    dtype: str
    against: str
    tokens: Deviation
    deepstack: tuple[Deviation, ...]
    layers: tuple[Deviation, ...]
    items: tuple[ItemComparison, ...]

    @property
    def worst(self) -> ItemComparison:
        """The item with the largest relative RMS error of tokens or deepstack."""
        return max(self.items, key=lambda item: item.relative_rms)


class Tallies:
    """The errors so far: of each stage over all items, and of each item in the stages that a language model gets."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stages: dict[Stage, Tally] = defaultdict(Tally)
        self._items: dict[tuple[InputItem, Stage], Tally] = defaultdict(Tally)
        self._tokens: dict[InputItem, list[Reals]] = defaultdict(list)  # |a - b| of each token

    def add(self, micro_batch: MicroBatch, stage: Stage, rows: RowErrors) -> None:
        """Add the errors of the rows of one stage of a micro-batch."""
        self._stages[stage].add(rows)
        if stage.kind == "layers":
            return
        for number, part in item_rows(micro_batch, self._config.merge_unit):
            item, errors = micro_batch.plan.items[number], rows.part(part)
            self._items[item, stage].add(errors)
            if stage.kind == "tokens":
                self._tokens[item].append(np.sqrt(errors.squared_error))

    def result(self, items: Sequence[InputItem], dtype: str, against: str) -> Comparison:
        """Return the comparison of all ``items``. Raises NumericalError for errors relative to zero."""

        def deviations(kind: str, count: int) -> tuple[Deviation, ...]:
            stages = [stage for number in range(count) if (stage := Stage(kind, number)) in self._stages]
            return tuple(self._stages[stage].deviation(f"{stage.name} of all items") for stage in stages)

        config = self._config
        return Comparison(
            dtype,
            against,
            tokens=deviations("tokens", 1)[0],
            deepstack=deviations("deepstack", len(config.deepstack)),
            layers=deviations("layers", config.depth + 1),
            items=tuple(map(self._item, items)),
        )

    def _item(self, item: InputItem) -> ItemComparison:
        name, merge, (steps, rows, columns) = item.place.source, self._config.spatial_merge_size, item.grid
        tokens, *deepstack = (
            self._items[item, stage].deviation(f"{name}, {stage.name}")
            for stage in (Stage("tokens"), *(Stage("deepstack", i) for i in range(len(self._config.deepstack))))
        )
        size = math.sqrt(self._items[item, Stage("tokens")].squared_norm / tokens.rows) or 1.0
        errors = np.concatenate(self._tokens[item]).reshape(steps, rows // merge, columns // merge) / size
        return ItemComparison(name, item.grid, tokens, tuple(deepstack), errors)
