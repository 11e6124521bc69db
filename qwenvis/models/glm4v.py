"""GLM-4.1V, GLM-4.5V and GLM-4.6V: RMSNorm, gated MLP, a learned grid of positions, a merger with a convolution.

transformers: Glm4vVisionModel, Glm4vMoeVisionModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qwenvis import geometry
from qwenvis.models.config import PATCH_EMBED, Config, Fields, Shapes, patch_sizes
from qwenvis.models.family import Family, HubLayout, Mmproj, Processors, TensorNames, edges
from qwenvis.models.framewise import Framewise
from qwenvis.models.mmproj_names import BLOCK, FUSED_QKV, GATED_MLP
from qwenvis.nn.blocks import Attention, Block
from qwenvis.nn.layers import GatedMlp, Linear, PatchEmbed, PositionTable, RMSNorm
from qwenvis.nn.mergers import DownsampleMerger
from qwenvis.nn.workspace import Workspace
from qwenvis.weights import Weights

ACTIVATIONS = {"silu": "silu_gate"}
POSITIONS = "embeddings.position_embedding.weight"


def config(vision_config: Mapping[str, Any], shapes: Shapes) -> Config:
    """Read a Glm4vVisionConfig: ``intermediate_size`` is the merger's, that of the blocks is ``out_hidden_size``."""
    fields = Fields(vision_config, shapes)
    width, sizes = fields.size("hidden_size", 1536, PATCH_EMBED), patch_sizes(fields)
    out = fields.size("out_hidden_size", 4096, "merger.proj.weight")
    return Config(
        depth=fields.depth(24),
        hidden_size=width,
        intermediate_size=out,
        num_heads=fields.num_heads(12, width),
        out_hidden_size=out,
        hidden_act=fields.choice("hidden_act", "silu", ACTIVATIONS),
        rope_theta=fields.rope_theta(),
        num_position_embeddings=fields.positions(336, sizes["patch_size"], POSITIONS),
        attention_bias=fields.flag("attention_bias", False),
        rms_norm_eps=fields.positive("rms_norm_eps", 1e-5),
        merger_intermediate_size=fields.size("intermediate_size", 13696, "merger.gate_proj.weight"),
        **sizes,
    )


class Tower(Framewise):
    """The vision encoder and merger of GLM-4.1V."""

    def __init__(self, config: Config, weights: Weights) -> None:
        self.config = c = config
        d, eps, out = c.hidden_size, c.rms_norm_eps, c.out_hidden_size
        self.patch_embed = PatchEmbed(weights.scope("patch_embed").scope("proj"), d, c.kernel, bias=True)
        self.post_conv_norm = RMSNorm(weights.scope("post_conv_layernorm"), d, eps)
        self.positions = PositionTable(
            weights.scope("embeddings").scope("position_embedding"), c.num_position_embeddings, d
        )
        self.blocks = [
            Block(
                RMSNorm(w.scope("norm1"), d, eps),
                _attention(w.scope("attn"), c),
                RMSNorm(w.scope("norm2"), d, eps),
                GatedMlp(w.scope("mlp"), d, c.intermediate_size, bias=False),
            )
            for w in map(weights.scope("blocks").scope, range(c.depth))
        ]
        merger = weights.scope("merger").per(c.merge_unit)
        mlp = GatedMlp(merger, out, c.merger_intermediate_size, bias=False, scratch="merged_hidden")
        norm = RMSNorm(weights.scope("post_layernorm"), d, eps)
        self.mergers = [DownsampleMerger(weights, norm, c.spatial_merge_size, d, mlp)]

    def embed(self, patches: np.ndarray, order: np.ndarray, grid_thw: np.ndarray, ws: Workspace) -> np.ndarray:
        """Embed the patches, normalise them, and add their interpolated positions."""
        merge_size, side = self.config.spatial_merge_size, self.positions.side
        free = ws.qkv[:, : self.config.hidden_size]  # no block has run yet
        embedded = self.patch_embed(patches, order, geometry.step_bounds(grid_thw), free, ws)  # (n, d)
        x = self.post_conv_norm(embedded, ws.x)  # (n, d)
        return self.positions(*geometry.interpolate_pos_embed(grid_thw, merge_size, side, geometry.bicubic), x)


def _attention(weights: Weights, c: Config) -> Attention:
    d = c.hidden_size
    qkv = Linear(weights.scope("qkv"), 3 * d, d, bias=c.attention_bias)
    return Attention(qkv, Linear(weights.scope("proj"), d, d, bias=False), c.num_heads, c.num_heads)


SIZE = {
    "attention_bias": False,
    "depth": 24,
    "hidden_act": "silu",
    "hidden_size": 1536,
    "image_size": 336,
    "in_channels": 3,
    "intermediate_size": 13696,
    "num_heads": 12,
    "out_hidden_size": 4096,
    "patch_size": 14,
    "rms_norm_eps": 1e-05,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
TINY = {
    **SIZE,
    "depth": 4,
    "hidden_size": 64,
    "image_size": 84,
    "intermediate_size": 100,
    "num_heads": 4,
    "out_hidden_size": 96,
}
LIMITS = edges(12544, 9633792)
PROCESSORS = Processors("Glm4vImageProcessor", "Glm4vVideoProcessor", LIMITS, video_limits=edges(12544, 47040000))
MMPROJ = Mmproj(
    "glm4v",
    {
        **BLOCK,
        "post_conv_layernorm": ("v.norm_embd",),
        "embeddings.position_embedding": ("v.position_embd",),
        "blocks.{}.attn.qkv": FUSED_QKV,
        **GATED_MLP,
        "post_layernorm": ("v.post_ln",),
        "downsample": ("mm.patch_merger",),
        "merger.proj": ("mm.model.fc",),
        "merger.post_projection_norm": ("mm.post_norm",),
        "merger.gate_proj": ("mm.gate",),
        "merger.up_proj": ("mm.up",),
        "merger.down_proj": ("mm.down",),
    },
    epsilons={"rms_norm_eps": "clip.vision.attention.layer_norm_epsilon"},  # in these files the tower's own
    image_size=True,
)
FAMILY = Family(
    config,
    Tower,
    signature_tensors=frozenset({"post_conv_layernorm.weight", "downsample.weight"}),
    published={"glm-4.1v-9b": SIZE, "tiny-glm4v": TINY},
    tensors=TensorNames(
        ("blocks", "downsample", "embeddings", "merger", "patch_embed", "post_conv_layernorm", "post_layernorm")
    ),
    hub=HubLayout("Glm4v"),
    processors=PROCESSORS,
    mmproj=MMPROJ,
)
GLM46V = FAMILY._replace(
    published={"tiny-glm46v": TINY},
    hub=HubLayout("Glm46V"),
    processors=Processors("Glm46VImageProcessor", "Glm46VVideoProcessor", LIMITS),
)
MOE = FAMILY._replace(
    published={"tiny-glm4v-moe": TINY},
    hub=HubLayout("Glm4vMoe"),
    processors=PROCESSORS._replace(video="", auto=False),
)
