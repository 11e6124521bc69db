"""One call of an encoder: the arrays that its forward passes fill, how far it has come, and whether they are finite."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qwenvis import geometry, ops
from qwenvis.errors import NumericalError
from qwenvis.models import Features, Tower
from qwenvis.nn.workspace import Workspaces

Progress = Callable[[int, int], object]


class Outputs:
    """Tokens, deepstack and hidden states of items whose patches come in order, some temporal steps at a time.

    ``progress(done, total)`` follows, in patches times layers.
    """

    def __init__(
        self,
        tower: Tower,
        workspaces: Workspaces,
        grid_thw: np.ndarray,
        hidden_states: bool,
        progress: Progress | None,
    ) -> None:
        config = tower.config
        patches = int(grid_thw.prod(axis=1).sum())
        self.tower, self.workspaces, self.progress = tower, workspaces, progress
        self.bounds = geometry.item_bounds(grid_thw)
        tokens = patches // config.merge_unit, config.out_hidden_size
        self.tokens, *self.deepstack = (np.empty(tokens, np.float32) for _ in range(1 + len(config.deepstack)))
        shape = (patches, config.hidden_size)
        self.hidden_states = [np.empty(shape, np.float32) for _ in range(config.depth + 1)] if hidden_states else []
        self.total = patches * (config.depth + 1)
        self.done = self.patches = 0

    def add(self, patches: np.ndarray, grid_thw: np.ndarray) -> None:
        """Encode the next temporal steps. Raises NumericalError for an item that is not finite after a layer.

        After an error the same steps are still the next steps, so the caller may try some of them again.
        """
        first, unit = self.patches, self.tower.config.merge_unit
        layer = 0

        def watch(x: np.ndarray, order: np.ndarray) -> None:
            nonlocal layer
            self._check(x, first + order, f"block {layer - 1}" if layer else "the patch embedding")
            if self.hidden_states:
                self.hidden_states[layer][first : first + len(x)][order] = x
            layer += 1
            self._tell(first * (self.tower.config.depth + 1) + layer * len(x))

        with self.workspaces.one() as ws:
            rows = slice(first // unit, (first + len(patches)) // unit)
            out = Features(self.tokens[rows], [tokens[rows] for tokens in self.deepstack])
            self.tower.forward(patches, grid_thw, ws.fit(self.tower.sizes(grid_thw)), out, watch)
        leading = np.arange(first, first + len(patches), unit)  # the first patch of each token
        self._check(out.tokens, leading, "the merger")
        for block, tokens in zip(self.tower.config.deepstack, out.deepstack, strict=True):
            self._check(tokens, leading, f"the deepstack merger after block {block}")
        self.patches += len(patches)

    def leave_out(self, patches: int) -> None:
        """Leave a gap of some patches, which count as done."""
        self.patches += patches
        self._tell(self.patches * (self.tower.config.depth + 1))

    def _tell(self, done: int) -> None:
        """Report progress, which never decreases."""
        self.done = max(self.done, done)
        if self.progress is not None:
            self.progress(self.done, self.total)

    def _check(self, x: np.ndarray, patches: np.ndarray, layer: str) -> None:
        """Raise NumericalError if the output x of a layer is not finite; ``patches`` are the patches of its rows."""
        if ops.all_finite(x):
            return
        spoilt = patches[~np.isfinite(x).all(axis=1)]
        item = int(np.searchsorted(self.bounds, spoilt.min(), side="right")) - 1
        error = NumericalError(
            f"item {item} is NaN or infinite after {layer}, in {len(spoilt)} of {len(x)} rows; its pixel values are so "
            "large that float32 overflows, or the weights have been damaged since they were packed"
        )
        error.index, error.source = item, f"item {item}"
        raise error
