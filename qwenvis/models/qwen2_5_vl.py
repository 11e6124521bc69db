"""Qwen2.5-VL: RMSNorm, gated MLP with SiLU, attention in windows but for a few blocks.

transformers: Qwen2_5_VisionTransformerPretrainedModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from qwenvis import geometry, ops
from qwenvis.errors import ConfigError
from qwenvis.layers import Attention, Block, GatedMlp, PatchEmbed, PatchMerger, RMSNorm
from qwenvis.models.config import Config, Fields, Shapes, patch_sizes
from qwenvis.models.features import Features, Watch, unwatched
from qwenvis.weights import Weights
from qwenvis.workspace import Sizes, Workspace

EPS = 1e-6  # of every norm; not in the config
ACTIVATIONS = {"silu": "silu_gate"}


def config(vision_config: Mapping[str, Any], shapes: Shapes) -> Config:
    """Read a Qwen2_5_VLVisionConfig."""
    fields = Fields(vision_config, shapes)
    width, sizes = fields.size("hidden_size", 3584, "patch_embed.proj.weight"), patch_sizes(fields)
    window = fields.integer("window_size", 112)
    if window < sizes["spatial_merge_size"] * sizes["patch_size"]:
        raise ConfigError(f"vision_config says window_size = {window}, less than one merge unit")
    return Config(
        depth=fields.depth(32),
        hidden_size=width,
        intermediate_size=fields.size("intermediate_size", 3420, "blocks.0.mlp.gate_proj.weight"),
        num_heads=fields.num_heads(16, width),
        out_hidden_size=fields.size("out_hidden_size", 3584, "merger.mlp.2.weight"),
        hidden_act=fields.choice("hidden_act", "silu", ACTIVATIONS),
        rope_theta=fields.rope_theta(),
        window_size=window,
        fullatt_block_indexes=fields.indexes("fullatt_block_indexes", (7, 15, 23, 31)),
        **sizes,
    )


class _Places(NamedTuple):
    """Where the patches are, in window order: all that follows from ``grid_thw``."""

    order: np.ndarray  # (n,) rows of pixel_values
    coords: np.ndarray  # (n, 2)
    cu_seqlens: list[np.ndarray]  # of each block: one segment a frame, or one a window


class Tower:
    """The vision encoder and merger of Qwen2.5-VL. Its sequence is in window order from end to end."""

    def __init__(self, config: Config, weights: Weights) -> None:
        self.config = c = config
        d = c.hidden_size
        self.patch_embed = PatchEmbed(weights.scope("patch_embed").scope("proj"), d, c.kernel)
        self.blocks = [
            Block(
                RMSNorm(w.scope("norm1"), d, EPS),
                Attention(w.scope("attn"), d, c.num_heads),
                RMSNorm(w.scope("norm2"), d, EPS),
                GatedMlp(w.scope("mlp"), d, c.intermediate_size),
            )
            for w in map(weights.scope("blocks").scope, range(c.depth))
        ]
        merger = weights.scope("merger")
        norm = RMSNorm(merger.scope("ln_q"), d, EPS)
        self.merger = PatchMerger(merger, norm, d, c.merge_unit, c.out_hidden_size)

    def sizes(self, grid_thw: np.ndarray) -> Sizes:
        """The workspace of one forward pass; ``x`` (n, d) is the residual stream, ``tokens`` are in window order."""
        n = int(grid_thw.prod(axis=1).sum())
        steps, rows, columns = grid_thw.T
        windows = int(steps @ (-(-rows // self.window) * -(-columns // self.window)))
        return {
            "x": (n, self.config.hidden_size, "float32"),
            "tokens": (n // self.config.merge_unit, self.config.out_hidden_size, "float32"),
            **self.patch_embed.sizes(n),
            **self.blocks[0].sizes(n, int((rows * columns).max(initial=0)), windows),
            **self.merger.sizes(n),
        }

    @property
    def window(self) -> int:
        """Side of a window in patches: whole merge units."""
        c = self.config
        return c.window_size // c.spatial_merge_size // c.patch_size * c.spatial_merge_size

    def segments(self, grid_thw: np.ndarray) -> list[np.ndarray]:
        """``cu_seqlens`` of each block, in window order: one segment a frame, or one a window."""
        return self._places(grid_thw).cu_seqlens

    def _places(self, grid_thw: np.ndarray) -> _Places:
        c, frames = self.config, geometry.frames(grid_thw)
        coords = geometry.coords(grid_thw, c.spatial_merge_size)
        labels = geometry.window_labels(coords, frames, self.window)
        order = np.argsort(labels, kind="stable")  # a window's patches side by side, merge units whole
        full, windowed = geometry.cu_seqlens(frames), geometry.cu_seqlens(labels[order])
        cu_seqlens = [full if i in c.fullatt_block_indexes else windowed for i in range(c.depth)]
        return _Places(order, coords[order], cu_seqlens)

    def forward(
        self, patches: np.ndarray, grid_thw: np.ndarray, ws: Workspace, out: np.ndarray, watch: Watch = unwatched
    ) -> Features:
        """Patches (n, C·T·p²), in the order of ``pixel_values``, to tokens (n / 4, out_hidden_size) in ``out``."""
        c = self.config
        order, coords, segments = self._places(grid_thw)
        rope = geometry.rope(coords, c.head_dim, c.rope_theta)  # 2 x (n, head_dim / 2)

        x = self.patch_embed(patches, order, geometry.item_bounds(grid_thw), ws.x, ws)  # (n, d)
        watch(x, order)
        for block, cu_seqlens in zip(self.blocks, segments, strict=True):
            block(x, rope, cu_seqlens, ws)
            watch(x, order)
        tokens = self.merger(x, ws.tokens, ws)  # (n / 4, out)
        return Features(ops.gather(tokens, np.argsort(order[:: c.merge_unit]), out))
