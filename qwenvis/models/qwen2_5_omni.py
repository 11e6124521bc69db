"""Qwen2.5-Omni: the tower of Qwen2.5-VL, with separate tensors for q, k and v.

transformers: Qwen2_5OmniVisionEncoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from qwenvis.models import qwen2_5_vl
from qwenvis.models.config import Config, Fields, Shapes
from qwenvis.models.family import HubLayout, Mmproj
from qwenvis.models.mmproj_names import BLOCK, GATED_MLP, PATCH_MERGER, SPLIT_QKV
from qwenvis.nn.blocks import Attention
from qwenvis.nn.layers import Linear, SplitLinear
from qwenvis.weights import Weights


def config(vision_config: Mapping[str, Any], shapes: Shapes) -> Config:
    """Read a Qwen2_5OmniVisionEncoderConfig."""
    Fields(vision_config, shapes).unused("embed_dim")  # of old configs; the width is hidden_size
    return qwen2_5_vl.config(vision_config, shapes)


def attention(weights: Weights, c: Config) -> Attention:
    """Build the attention of a block, with a product each for q, k and v."""
    d = c.hidden_size
    qkv, proj = SplitLinear(weights, ("q", "k", "v"), d, d), Linear(weights.scope("proj"), d, d)
    return Attention(qkv, proj, c.num_heads, c.num_heads)


FAMILY = qwen2_5_vl.FAMILY._replace(
    config=config,
    tower=partial(qwen2_5_vl.Tower, attention=attention),
    signature_tensors=frozenset({"blocks.0.mlp.gate_proj.weight", "blocks.0.attn.q.weight"}),
    published={
        "qwen2.5-omni-3b": {**qwen2_5_vl.SIZE, "out_hidden_size": 2048},
        "qwen2.5-omni-7b": qwen2_5_vl.SIZE,
        "tiny-qwen2.5-omni": {**qwen2_5_vl.SIZE, **qwen2_5_vl.TINY, "out_hidden_size": 96},
    },
    hub=HubLayout("Qwen2_5Omni", "thinker.visual.", "thinker_config"),
    mmproj=Mmproj(
        "qwen2.5o",
        {
            **BLOCK,
            **{f"blocks.{{}}.attn.{letter}": (name,) for letter, name in zip("qkv", SPLIT_QKV, strict=True)},
            **GATED_MLP,
            **PATCH_MERGER,
        },
        windows=True,
    ),
)
