"""EXAONE-4.5: the tower of Qwen2.5-VL, with fewer heads of keys and values than of queries.

transformers: Exaone4_5_VisionModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qwenvis.models import qwen2_5_vl
from qwenvis.models.config import Config, Fields, Shapes
from qwenvis.models.family import HubLayout, Mmproj
from qwenvis.models.mmproj_names import BLOCK, FUSED_QKV, GATED_MLP, PATCH_MERGER


def config(vision_config: Mapping[str, Any], shapes: Shapes) -> Config:
    """Read an Exaone4_5_VisionConfig."""
    fields, c = Fields(vision_config, shapes), qwen2_5_vl.config(vision_config, shapes)
    rows = fields.found("blocks.0.attn.qkv.weight")  # heads of q, and twice those of k
    default = 8 if rows is None else (rows // c.head_dim - c.num_heads) // 2
    return replace(c, num_key_value_heads=fields.integer("num_key_value_heads", default))


SIZE = {
    **qwen2_5_vl.SIZE,
    "depth": 28,
    "hidden_size": 2048,
    "intermediate_size": 5120,
    "num_heads": 32,
    "num_key_value_heads": 8,
    "out_hidden_size": 5120,
    "fullatt_block_indexes": [6, 13, 20, 27],
}
FAMILY = qwen2_5_vl.FAMILY._replace(
    config=config,
    published={
        "exaone-4.5-33b": SIZE,
        "tiny-exaone-4.5": {**SIZE, **qwen2_5_vl.TINY, "num_key_value_heads": 2, "out_hidden_size": 96},
    },
    hub=HubLayout("Exaone45"),
    mmproj=Mmproj(
        "exaone4_5",
        {**BLOCK, "blocks.{}.attn.qkv": FUSED_QKV, **GATED_MLP, **PATCH_MERGER},
        counts={
            "num_key_value_heads": "clip.vision.attention.head_count_kv",
            "window_size": "clip.vision.window_size",
        },
        windows=True,
        published_limits=False,
    ),
)
