"""Qwen3-VL: a learned grid of positions besides rope, fc1 and fc2 with tanh-GELU, and deepstack.

transformers: Qwen3VLVisionModel. Related families have other names for the mergers, or no deepstack.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from qwenvis import geometry
from qwenvis.models.config import PATCH_EMBED, Config, Fields, Shapes, patch_sizes
from qwenvis.models.family import (
    HALF,
    Family,
    Features,
    HubLayout,
    Mmproj,
    Processors,
    TensorNames,
    Watch,
    edges,
    unwatched,
)
from qwenvis.models.framewise import Framewise
from qwenvis.models.mmproj_names import BLOCK, FUSED_QKV
from qwenvis.nn.blocks import Attention, Block
from qwenvis.nn.layers import LayerNorm, Mlp, PatchEmbed, PositionTable
from qwenvis.nn.mergers import DeepstackMerger, PatchMerger
from qwenvis.nn.workspace import Workspace
from qwenvis.weights import Weights

EPS = 1e-6  # of all norms; not in the config
ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_pytorch_tanh", "gelu": "gelu", "quick_gelu": "quick_gelu"}


class MergerNames(NamedTuple):
    """The names of the tensors of the mergers."""

    norm: str
    fc1: str
    fc2: str
    deepstack: str  # the list of the deepstack mergers


NAMES = MergerNames("norm", "linear_fc1", "linear_fc2", "deepstack_merger_list")


def config(
    vision_config: Mapping[str, Any],
    shapes: Shapes,
    names: MergerNames = NAMES,
    deepstack: tuple[int, ...] = (8, 16, 24),
) -> Config:
    """Read a Qwen3VLVisionConfig; ``deepstack`` is the default of its ``deepstack_visual_indexes``."""
    fields = Fields(vision_config, shapes)
    width = fields.size("hidden_size", 1152, PATCH_EMBED)
    return Config(
        depth=fields.depth(27),
        hidden_size=width,
        intermediate_size=fields.size("intermediate_size", 4304, "blocks.0.mlp.linear_fc1.weight"),
        num_heads=fields.num_heads(16, width),
        out_hidden_size=fields.size("out_hidden_size", 3584, f"merger.{names.fc2}.weight"),
        hidden_act=fields.choice("hidden_act", "gelu_pytorch_tanh", ACTIVATIONS),
        rope_theta=fields.rope_theta(),
        num_position_embeddings=fields.size("num_position_embeddings", 2304, "pos_embed.weight"),
        deepstack_visual_indexes=fields.indexes("deepstack_visual_indexes", deepstack),
        **patch_sizes(fields, patch_size=16),
    )


class Tower(Framewise):
    """The vision encoder and mergers of Qwen3-VL."""

    def __init__(self, config: Config, weights: Weights, names: MergerNames = NAMES) -> None:
        self.config = c = config
        d, merge = c.hidden_size, (c.merge_unit, c.out_hidden_size, (names.fc1, names.fc2))
        self.patch_embed = PatchEmbed(weights.scope("patch_embed").scope("proj"), d, c.kernel, bias=True)
        self.pos_embed = PositionTable(weights.scope("pos_embed"), c.num_position_embeddings, d)
        self.blocks = [
            Block(
                LayerNorm(w.scope("norm1"), d, EPS),
                Attention.fused(w.scope("attn"), d, c.num_heads, c.num_heads),
                LayerNorm(w.scope("norm2"), d, EPS),
                Mlp(w.scope("mlp"), d, c.intermediate_size, c.hidden_act, ("linear_fc1", "linear_fc2")),
            )
            for w in map(weights.scope("blocks").scope, range(c.depth))
        ]
        merger = weights.scope("merger")
        self.merger = PatchMerger(merger, LayerNorm(merger.scope(names.norm), d, EPS), d, *merge)
        self.deepstack = [
            DeepstackMerger(w, LayerNorm(w.scope(names.norm), c.merge_unit * d, EPS), d, *merge)
            for w in map(weights.scope(names.deepstack).scope, range(len(c.deepstack_visual_indexes)))
        ]
        self.mergers = [self.merger, *self.deepstack]

    def embed(self, patches: np.ndarray, order: np.ndarray, grid_thw: np.ndarray, ws: Workspace) -> np.ndarray:
        """Embed the patches as the base does, and add their interpolated positions."""
        x = super().embed(patches, order, grid_thw, ws)  # (n, d)
        merge_size, side = self.config.spatial_merge_size, self.pos_embed.side
        method = geometry.bilinear_align_corners
        return self.pos_embed(*geometry.interpolate_pos_embed(grid_thw, merge_size, side, method), x)

    def forward(
        self, patches: np.ndarray, grid_thw: np.ndarray, ws: Workspace, out: Features, watch: Watch = unwatched
    ) -> Features:
        """Encode patches (n, C·T·p²), in the order of ``pixel_values``, as the arrays of ``out``, each (n / 4, out)."""
        c = self.config
        coords = geometry.coords(grid_thw, c.spatial_merge_size)  # (n, 2)
        rope = geometry.rope(coords, c.head_dim, c.rope_theta)  # 2 x (n, head_dim / 2)
        order, deepstack = self.order(grid_thw), list(out.deepstack)

        x = self.embed(patches, order, grid_thw, ws)  # (n, d)
        watch(x, order)
        for i, (block, cu_seqlens) in enumerate(zip(self.blocks, self.segments(grid_thw), strict=True)):
            block(x, rope, cu_seqlens, ws)
            watch(x, order)
            if i in c.deepstack:
                self.deepstack[c.deepstack[i]](x, deepstack.pop(0), ws)  # (n / 4, out)
        self.merger(x, out.tokens, ws)  # (n / 4, out)
        return out


SHARED = {
    "hidden_act": "gelu_pytorch_tanh",
    "in_channels": 3,
    "num_heads": 16,
    "num_position_embeddings": 2304,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
SMALL = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, **SHARED}
LARGE = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, **SHARED}
TINY = {
    **SHARED,
    "depth": 4,
    "hidden_size": 64,
    "intermediate_size": 100,
    "num_heads": 4,
    "num_position_embeddings": 144,
    "out_hidden_size": 96,
}
EARLY, LATE = {"deepstack_visual_indexes": [5, 11, 17]}, {"deepstack_visual_indexes": [8, 16, 24]}
PROCESSORS = Processors(
    "Qwen2VLImageProcessorFast",
    "Qwen3VLVideoProcessor",
    edges(65536, 16777216),
    HALF,
    video_limits=edges(4096, 25165824),
    class_normalisation=False,
)
MMPROJ = Mmproj(
    "qwen3vl_merger",
    {
        **BLOCK,
        "pos_embed": ("v.position_embd",),
        "blocks.{}.attn.qkv": FUSED_QKV,
        "blocks.{}.mlp.linear_fc1": ("v.blk.{}.ffn_up",),
        "blocks.{}.mlp.linear_fc2": ("v.blk.{}.ffn_down",),
        "merger.norm": ("v.post_ln",),
        "merger.linear_fc1": ("mm.0",),
        "merger.linear_fc2": ("mm.2",),
        # The file counts deepstack mergers by the block that each follows, the tower by their own order.
        "deepstack_merger_list.{rank}.norm": ("v.deepstack.{}.norm",),
        "deepstack_merger_list.{rank}.linear_fc1": ("v.deepstack.{}.fc1",),
        "deepstack_merger_list.{rank}.linear_fc2": ("v.deepstack.{}.fc2",),
    },
)
FAMILY = Family(
    config,
    Tower,
    signature_tensors=frozenset({"blocks.0.mlp.linear_fc1.weight", "merger.linear_fc1.weight"}),
    published={
        "qwen3-vl-2b": {**SMALL, "out_hidden_size": 2048, **EARLY},
        "qwen3-vl-4b": {**SMALL, "out_hidden_size": 2560, **EARLY},
        "qwen3-vl-8b": {**LARGE, "out_hidden_size": 4096, **LATE},
        "qwen3-vl-32b": {**LARGE, "out_hidden_size": 5120, **LATE},
        "tiny-qwen3-vl": {**TINY, "deepstack_visual_indexes": [0, 2]},
    },
    tensors=TensorNames(("blocks", "deepstack_merger_list", "merger", "patch_embed", "pos_embed")),
    hub=HubLayout("Qwen3VL"),
    processors=PROCESSORS,
    mmproj=MMPROJ._replace(signature="v.deepstack."),
)
MOE = FAMILY._replace(
    published={
        "qwen3-vl-30b-a3b": {**LARGE, "out_hidden_size": 2048, **LATE},
        "qwen3-vl-235b-a22b": {**LARGE, "out_hidden_size": 4096, **LATE},
        "tiny-qwen3-vl-moe": {**TINY, "deepstack_visual_indexes": [0, 2]},
    },
    hub=HubLayout("Qwen3VLMoe"),
    processors=PROCESSORS._replace(auto=False),
)
COMPASS = FAMILY._replace(
    published={"tiny-cohere-compass": {**TINY, "deepstack_visual_indexes": [0, 2]}},
    hub=HubLayout("CohereCompass"),
    processors=Processors("CohereCompassImageProcessor", "CohereCompassVideoProcessor", edges(3136, 1003520)),
    mmproj=None,
)
