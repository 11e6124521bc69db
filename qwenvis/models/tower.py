"""What every family's tower offers to the rooms above."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from qwenvis.models.config import Config
from qwenvis.models.features import Features, Watch, unwatched
from qwenvis.nn.workspace import Sizes, Workspace


class Tower(Protocol):
    """A vision encoder and its merger; in the shapes, n patches become n / merge_size² tokens."""

    config: Config

    def sizes(self, grid_thw: np.ndarray) -> Sizes:
        """The workspace of one forward pass over ``grid_thw`` (items, 3)."""

    def segments(self, grid_thw: np.ndarray) -> list[np.ndarray]:
        """``cu_seqlens`` of each block: which patches attend to each other."""

    def forward(
        self, patches: np.ndarray, grid_thw: np.ndarray, ws: Workspace, out: Features, watch: Watch = unwatched
    ) -> Features:
        """Patches (n, C·T·p²), in the order of ``pixel_values``, to the tokens of ``out``, which is returned."""
