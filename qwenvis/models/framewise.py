"""What towers have in common whose blocks all attend within a frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qwenvis import geometry
from qwenvis.models.config import Config
from qwenvis.nn.blocks import Block
from qwenvis.nn.layers import PatchEmbed
from qwenvis.nn.mergers import Merger
from qwenvis.nn.workspace import Sizes


class Framewise:
    """The workspace and the segments of such a tower."""

    config: Config
    patch_embed: PatchEmbed
    blocks: Sequence[Block]
    mergers: Sequence[Merger]

    def sizes(self, grid_thw: np.ndarray) -> Sizes:
        """The workspace of one forward pass; ``x`` (n, d) is the residual stream."""
        n, longest, segments = geometry.extent(grid_thw)
        sizes = {
            "x": (n, self.config.hidden_size, "float32"),
            **self.patch_embed.sizes(n),
            **self.blocks[0].sizes(n, longest, segments),
        }
        for merger in self.mergers:
            sizes |= merger.sizes(n)
        return sizes

    def segments(self, grid_thw: np.ndarray) -> list[np.ndarray]:
        """``cu_seqlens`` of each block: one segment a frame."""
        return [geometry.cu_seqlens(geometry.frames(grid_thw))] * self.config.depth
