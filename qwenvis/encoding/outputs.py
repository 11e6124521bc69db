"""The output arrays of one call: filled by its forward passes, and checked for NaN and infinity after every layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qwenvis import ops
from qwenvis.embeddings import Embeddings
from qwenvis.errors import NumericalError
from qwenvis.geometry import item_bounds, patch_count
from qwenvis.models import Features, Tower
from qwenvis.nn.workspace import Workspaces

Progress = Callable[[int, int], object]


class Outputs:
    """Tokens, deepstack and hidden states of items whose patches come in order, one micro-batch at a time.

    ``progress(done, total)`` is called after every layer, with numbers of patches times layers.
    """

    def __init__(
        self,
        tower: Tower,
        workspaces: Workspaces,
        grid_thw: np.ndarray,
        hidden_states: bool,
        progress: Progress | None,
    ) -> None:
        config, patches = tower.config, patch_count(grid_thw)
        self.tower, self.workspaces, self.progress = tower, workspaces, progress
        self.bounds = item_bounds(grid_thw)
        tokens = patches // config.merge_unit, config.out_hidden_size
        self.tokens, *self.deepstack = (np.empty(tokens, np.float32) for _ in range(1 + len(config.deepstack)))
        shape = (patches, config.hidden_size)
        self.hidden_states = [np.empty(shape, np.float32) for _ in range(config.depth + 1)] if hidden_states else []
        self.total = patches * (config.depth + 1)
        self.done = self.patches = 0

    def forward(self, patches: np.ndarray, grid_thw: np.ndarray) -> None:
        """Run the tower on the next patches. Raises NumericalError for an item that is not finite after a layer.

        After an error the next call starts at the same row of the output, so the caller may try the patches again
        without the item.
        """
        first, unit = self.patches, self.tower.config.merge_unit
        layer = 0

        def watch(x: np.ndarray, order: np.ndarray) -> None:
            nonlocal layer
            rows = first + order
            self._check(x, rows, f"block {layer - 1}" if layer else "the patch embedding")
            self.keep(layer, rows, x)
            layer += 1
            self._report(first * (self.tower.config.depth + 1) + layer * len(x))

        with self.workspaces.one() as ws:
            rows = slice(first // unit, (first + len(patches)) // unit)
            out = Features(self.tokens[rows], [tokens[rows] for tokens in self.deepstack])
            self.tower.forward(patches, grid_thw, ws.fit(self.tower.sizes(grid_thw)), out, watch)
        leading = np.arange(first, first + len(patches), unit)  # the first patch of each token
        self._check(out.tokens, leading, "the merger")
        for block, tokens in zip(self.tower.config.deepstack, out.deepstack, strict=True):
            self._check(tokens, leading, f"the deepstack merger after block {block}")
        self.patches += len(patches)

    def keep(self, layer: int, rows: np.ndarray, x: np.ndarray) -> None:
        """Keep the output x of a layer, if hidden states are kept; ``rows`` are the patches of its rows in the call."""
        if self.hidden_states:
            self.hidden_states[layer][rows] = x

    def skip(self, patches: int) -> None:
        """Leave the rows of the next ``patches`` patches unset, and count them as done."""
        self.patches += patches
        self._report(self.patches * (self.tower.config.depth + 1))

    def take(self, found: Embeddings, first: int, stop: int) -> None:
        """Copy the tokens of the temporal steps from ``first`` to ``stop`` of an item that was encoded before."""
        step = len(found.embeddings) // int(found.grid_thw[0, 0])
        unit = self.tower.config.merge_unit
        rows = slice(self.patches // unit, self.patches // unit + (stop - first) * step)
        for out, tokens in zip([self.tokens, *self.deepstack], [found.embeddings, *found.deepstack], strict=True):
            out[rows] = tokens[first * step : stop * step]
        self.skip((stop - first) * step * unit)

    def single(self, item: int, grid_thw: np.ndarray, provenance: dict[str, str], **item_fields: Any) -> Embeddings:
        """Return one item, without hidden states, whose arrays are views; arguments as of `embeddings`."""
        rows = slice(*(self.bounds[item : item + 2] // self.tower.config.merge_unit).tolist())
        tokens, *deepstack = (array[rows] for array in (self.tokens, *self.deepstack))
        grid, merge_size = grid_thw[item : item + 1].copy(), self.tower.config.spatial_merge_size
        return Embeddings(tokens, grid, merge_size, [], provenance, deepstack, **item_fields)

    def embeddings(self, grid_thw: np.ndarray, provenance: dict[str, str], **item_fields: Any) -> Embeddings:
        """Return all items; ``item_fields`` are the fields of `Embeddings` about sources, sizes, times and keys."""
        merge_size = self.tower.config.spatial_merge_size
        states, deepstack = self.hidden_states, self.deepstack
        return Embeddings(self.tokens, grid_thw.copy(), merge_size, states, provenance, deepstack, **item_fields)

    def _report(self, done: int) -> None:
        """Report progress, which never decreases."""
        self.done = max(self.done, done)
        if self.progress is not None:
            self.progress(self.done, self.total)

    def _check(self, x: np.ndarray, patches: np.ndarray, layer: str) -> None:
        """Raise NumericalError unless the output x of a layer is finite; ``patches`` are the patches of its rows."""
        if ops.all_finite(x):
            return
        bad = patches[~np.isfinite(x).all(axis=1)]
        item = int(np.searchsorted(self.bounds, bad.min(), side="right")) - 1
        error = NumericalError(
            f"item {item} is NaN or infinite after {layer}, in {len(bad)} of {len(x)} rows; its pixel values are so "
            "large that float32 overflows, or the weights have been damaged since they were packed"
        )
        error.index, error.source = item, f"item {item}"
        raise error
