"""GLM-OCR: the tower of GLM-4.1V with normalised queries and keys, with biases, and without learned positions.

transformers: GlmOcrVisionModel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qwenvis.models import glm4v
from qwenvis.models.config import PATCH_EMBED, Config, Fields, Shapes, patch_sizes
from qwenvis.models.family import Family, HubLayout, Processors, TensorNames
from qwenvis.models.framewise import Framewise
from qwenvis.nn.blocks import Block, NormedAttention
from qwenvis.nn.layers import GatedMlp, Linear, PatchEmbed, RMSNorm
from qwenvis.nn.mergers import DownsampleMerger
from qwenvis.weights import Weights


def config(vision_config: Mapping[str, Any], shapes: Shapes) -> Config:
    """Read a GlmOcrVisionConfig: the inner size of the merger follows from ``out_hidden_size``."""
    fields = Fields(vision_config, shapes)
    width, sizes = fields.size("hidden_size", 1024, PATCH_EMBED), patch_sizes(fields)
    out = fields.size("out_hidden_size", 1536, "merger.proj.weight")
    fields.unused("image_size")  # there are no learned positions
    return Config(
        depth=fields.depth(24),
        hidden_size=width,
        intermediate_size=fields.size("intermediate_size", 4096, "blocks.0.mlp.gate_proj.weight"),
        num_heads=fields.num_heads(16, width),
        out_hidden_size=out,
        hidden_act=fields.choice("hidden_act", "silu", glm4v.ACTIVATIONS),
        rope_theta=fields.rope_theta(),
        attention_bias=fields.flag("attention_bias", True),
        rms_norm_eps=fields.positive("rms_norm_eps", 1e-5),
        merger_intermediate_size=out * sizes["in_channels"],
        **sizes,
    )


class Tower(Framewise):
    """The vision encoder and merger of GLM-OCR. ``gated_mlp`` builds the MLPs of the blocks and of the merger."""

    def __init__(self, config: Config, weights: Weights, gated_mlp: Callable[..., GatedMlp] = GatedMlp) -> None:
        self.config = c = config
        d, eps, out = c.hidden_size, c.rms_norm_eps, c.out_hidden_size
        self.patch_embed = PatchEmbed(weights.scope("patch_embed").scope("proj"), d, c.kernel, bias=True)
        self.blocks = [
            Block(
                RMSNorm(w.scope("norm1"), d, eps),
                _attention(w.scope("attn"), c),
                RMSNorm(w.scope("norm2"), d, eps),
                gated_mlp(w.scope("mlp"), d, c.intermediate_size, bias=c.attention_bias),
            )
            for w in map(weights.scope("blocks").scope, range(c.depth))
        ]
        merger = weights.scope("merger").per(c.merge_unit)
        mlp = gated_mlp(merger, out, c.merger_intermediate_size, bias=False, scratch="merged_hidden")
        norm = RMSNorm(weights.scope("post_layernorm"), d, eps)
        self.mergers = [DownsampleMerger(weights, norm, c.spatial_merge_size, d, mlp)]


def _attention(weights: Weights, c: Config) -> NormedAttention:
    d = c.hidden_size
    qkv = Linear(weights.scope("qkv"), 3 * d, d, bias=c.attention_bias)
    proj = Linear(weights.scope("proj"), d, d, bias=c.attention_bias)
    q_norm, k_norm = (RMSNorm(weights.scope(name), c.head_dim, c.rms_norm_eps) for name in ("q_norm", "k_norm"))
    return NormedAttention(qkv, proj, c.num_heads, q_norm, k_norm)


SIZE = {
    "attention_bias": True,
    "depth": 24,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "in_channels": 3,
    "intermediate_size": 4096,
    "num_heads": 16,
    "out_hidden_size": 1536,
    "patch_size": 14,
    "rms_norm_eps": 1e-05,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
TINY = {**SIZE, "depth": 4, "hidden_size": 64, "intermediate_size": 100, "num_heads": 4, "out_hidden_size": 96}
FAMILY = Family(
    config,
    Tower,
    signature_tensors=frozenset({"blocks.0.attn.q_norm.weight", "downsample.weight"}),
    published={"glm-ocr": SIZE, "tiny-glm-ocr": TINY},
    tensors=TensorNames(("blocks", "downsample", "merger", "patch_embed", "post_layernorm")),
    hub=HubLayout("GlmOcr"),
    processors=Processors("Glm46VImageProcessor", "", glm4v.LIMITS, auto=False),
    mmproj=glm4v.MMPROJ._replace(
        names={
            **glm4v.MMPROJ.names,
            "blocks.{}.attn.q_norm": ("v.blk.{}.attn_q_norm",),
            "blocks.{}.attn.k_norm": ("v.blk.{}.attn_k_norm",),
        },
        signature="v.blk.0.attn_q_norm.",
        image_size=False,
    ),
)
