"""The towers whose blocks all attend within a frame: their workspace, their segments and their forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qwenvis import geometry
from qwenvis.models.config import Config
from qwenvis.models.family import Features, Watch, unwatched
from qwenvis.nn.blocks import Block
from qwenvis.nn.layers import PatchEmbed
from qwenvis.nn.mergers import Merger
from qwenvis.nn.workspace import Sizes, Workspace


class Framewise:
    """A tower of blocks between a patch embedding and a merger; the first of ``mergers`` makes the tokens.

    A family overrides `embed` where its patch embedding has more parts, `order` where its ``pixel_values`` are not in
    the order of merge units, and `forward` where it returns more than tokens.
    """

    config: Config
    patch_embed: PatchEmbed
    blocks: Sequence[Block]
    mergers: Sequence[Merger]

    def sizes(self, grid_thw: np.ndarray) -> Sizes:
        """Return the workspace of one forward pass; ``x`` (n, d) is the residual stream."""
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
        """Return the ``cu_seqlens`` of each block: one segment for each frame."""
        return [geometry.cu_seqlens(geometry.frames(grid_thw))] * self.config.depth

    def order(self, grid_thw: np.ndarray) -> np.ndarray:
        """Return the rows of ``pixel_values`` (n,) in the order of the sequence: merge unit by merge unit."""
        return np.arange(geometry.patch_count(grid_thw))

    def embed(self, patches: np.ndarray, order: np.ndarray, grid_thw: np.ndarray, ws: Workspace) -> np.ndarray:
        """Embed the patches: (n, C·T·p²) -> ``ws.x`` (n, d), row r of row ``order[r]``."""
        return self.patch_embed(patches, order, geometry.step_bounds(grid_thw), ws.x, ws)

    def forward(
        self, patches: np.ndarray, grid_thw: np.ndarray, ws: Workspace, out: Features, watch: Watch = unwatched
    ) -> Features:
        """Encode patches (n, C·T·p²), in the order of ``pixel_values``, as the tokens of ``out`` (n / 4, out)."""
        c = self.config
        coords = geometry.coords(grid_thw, c.spatial_merge_size)  # (n, 2)
        rope = geometry.rope(coords, c.head_dim, c.rope_theta)  # 2 x (n, head_dim / 2)
        order = self.order(grid_thw)

        x = self.embed(patches, order, grid_thw, ws)  # (n, d)
        watch(x, order)
        for block, cu_seqlens in zip(self.blocks, self.segments(grid_thw), strict=True):
            block(x, rope, cu_seqlens, ws)
            watch(x, order)
        self.mergers[0](x, out.tokens, ws)  # (n / 4, out)
        return out
