"""Qwen2.5-VL: RMSNorm, gated MLP with SiLU, attention in windows except in a few blocks.

transformers: Qwen2_5_VisionTransformerPretrainedModel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from qwenvis import geometry, ops
from qwenvis.models import qwen2_vl
from qwenvis.models.config import PATCH_EMBED, Config, Fields, Shapes, patch_sizes
from qwenvis.models.family import Family, Features, HubLayout, Mmproj, TensorNames, Watch, unwatched
from qwenvis.models.mmproj_names import BLOCK, GATED_MLP, PATCH_MERGER, SPLIT_QKV, SURGERY
from qwenvis.nn.blocks import Attention, Block
from qwenvis.nn.layers import GatedMlp, PatchEmbed, RMSNorm
from qwenvis.nn.mergers import PatchMerger
from qwenvis.nn.workspace import Sizes, Workspace
from qwenvis.weights import Weights

EPS = 1e-6  # of all norms; not in the config
ACTIVATIONS = {"silu": "silu_gate"}


def config(vision_config: Mapping[str, Any], shapes: Shapes) -> Config:
    """Read a Qwen2_5_VLVisionConfig."""
    fields = Fields(vision_config, shapes)
    width, sizes = fields.size("hidden_size", 3584, PATCH_EMBED), patch_sizes(fields)
    window = fields.integer("window_size", 112)
    if window < sizes["spatial_merge_size"] * sizes["patch_size"]:
        raise fields.refused("window_size", "at least the side of a merge unit in pixels", window)
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
    """The places of the patches in window order, which follow from ``grid_thw`` alone."""

    order: np.ndarray  # (n,) rows of pixel_values
    coords: np.ndarray  # (n, 2)
    cu_seqlens: list[np.ndarray]  # of each block: a segment for each frame, or for each window


def attention(weights: Weights, c: Config) -> Attention:
    """Build the attention of a block, with one product for q, k and v."""
    return Attention.fused(weights, c.hidden_size, c.num_heads, c.key_value_heads)


class Tower:
    """The vision encoder and merger of Qwen2.5-VL. The sequence is in window order from end to end.

    ``attention(weights, config)`` builds the attention of a block.
    """

    def __init__(
        self, config: Config, weights: Weights, attention: Callable[[Weights, Config], Attention] = attention
    ) -> None:
        self.config = c = config
        d = c.hidden_size
        self.patch_embed = PatchEmbed(weights.scope("patch_embed").scope("proj"), d, c.kernel)
        self.blocks = [
            Block(
                RMSNorm(w.scope("norm1"), d, EPS),
                attention(w.scope("attn"), c),
                RMSNorm(w.scope("norm2"), d, EPS),
                GatedMlp(w.scope("mlp"), d, c.intermediate_size),
            )
            for w in map(weights.scope("blocks").scope, range(c.depth))
        ]
        merger = weights.scope("merger")
        norm = RMSNorm(merger.scope("ln_q"), d, EPS)
        self.merger = PatchMerger(merger, norm, d, c.merge_unit, c.out_hidden_size)

    def sizes(self, grid_thw: np.ndarray) -> Sizes:
        """Return the workspace of a forward pass; ``x`` (n, d) is the residual stream, ``tokens`` in window order."""
        n, longest, _ = geometry.extent(grid_thw)
        steps, rows, columns = grid_thw.T
        windows = int(steps @ (-(-rows // self.window) * -(-columns // self.window)))
        return {
            "x": (n, self.config.hidden_size, "float32"),
            "tokens": (n // self.config.merge_unit, self.config.out_hidden_size, "float32"),
            **self.patch_embed.sizes(n),
            **self.blocks[0].sizes(n, longest, windows),
            **self.merger.sizes(n),
        }

    @property
    def window(self) -> int:
        """The side of a window in patches, which whole merge units fill."""
        c = self.config
        return c.window_size // c.spatial_merge_size // c.patch_size * c.spatial_merge_size

    def segments(self, grid_thw: np.ndarray) -> list[np.ndarray]:
        """Return the ``cu_seqlens`` of each block, in window order: a segment for each frame, or for each window."""
        return self._places(grid_thw).cu_seqlens

    def _places(self, grid_thw: np.ndarray) -> _Places:
        c, frames = self.config, geometry.frames(grid_thw)
        coords = geometry.coords(grid_thw, c.spatial_merge_size)
        labels = geometry.window_labels(coords, frames, self.window)
        order = np.argsort(labels, kind="stable")  # patches of a window side by side, merge units whole
        full, windowed = geometry.cu_seqlens(frames), geometry.cu_seqlens(labels[order])
        cu_seqlens = [full if i in c.fullatt_block_indexes else windowed for i in range(c.depth)]
        return _Places(order, coords[order], cu_seqlens)

    def forward(
        self, patches: np.ndarray, grid_thw: np.ndarray, ws: Workspace, out: Features, watch: Watch = unwatched
    ) -> Features:
        """Encode patches (n, C·T·p²), in the order of ``pixel_values``, as the tokens of ``out`` (n / 4, out)."""
        c = self.config
        order, coords, segments = self._places(grid_thw)
        rope = geometry.rope(coords, c.head_dim, c.rope_theta)  # 2 x (n, head_dim / 2)

        x = self.patch_embed(patches, order, geometry.step_bounds(grid_thw), ws.x, ws)  # (n, d)
        watch(x, order)
        for block, cu_seqlens in zip(self.blocks, segments, strict=True):
            block(x, rope, cu_seqlens, ws)
            watch(x, order)
        tokens = self.merger(x, ws.tokens, ws)  # (n / 4, out)
        ops.gather(tokens, np.argsort(order[:: c.merge_unit]), out.tokens)
        return out


SIZE = {
    "depth": 32,
    "hidden_act": "silu",
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 3584,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
LANGUAGE_MODELS = {
    **qwen2_vl.LANGUAGE_MODELS,
    2048: qwen2_vl.language_model(11008, 36, (16, 2), 151936),
    5120: qwen2_vl.language_model(27648, 64, (40, 8), 152064),
}
LEGACY = {"tokens_per_second": 2, **qwen2_vl.LEGACY}
TINY = {"depth": 4, "hidden_size": 64, "intermediate_size": 100, "num_heads": 4, "fullatt_block_indexes": [1, 3]}
FAMILY = Family(
    config,
    Tower,
    signature_tensors=frozenset({"blocks.0.mlp.gate_proj.weight", "blocks.0.attn.qkv.weight", "merger.ln_q.weight"}),
    published={
        "qwen2.5-vl-3b": {**SIZE, "out_hidden_size": 2048, **LEGACY},
        "qwen2.5-vl-7b": {**SIZE, **LEGACY},
        "qwen2.5-vl-32b": {**SIZE, "intermediate_size": 3456, "out_hidden_size": 5120, **LEGACY},
        "qwen2.5-vl-72b": {**SIZE, "intermediate_size": 3456, "out_hidden_size": 8192, **LEGACY},
        "tiny-qwen2.5-vl": {**SIZE, **TINY, "out_hidden_size": 96, **LEGACY},
    },
    tensors=TensorNames(("blocks", "merger", "patch_embed")),
    hub=HubLayout("Qwen2_5_VL", "visual.", language_models=LANGUAGE_MODELS),
    processors=qwen2_vl.PROCESSORS,
    mmproj=Mmproj(
        "qwen2.5vl_merger",
        {**BLOCK, "blocks.{}.attn.qkv": SPLIT_QKV, **GATED_MLP, **PATCH_MERGER},
        windows=True,
        unread=SURGERY,
    ),
)
