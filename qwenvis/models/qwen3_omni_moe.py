"""Qwen3-Omni: the tower of Qwen3-VL, with other names for the mergers.

transformers: Qwen3OmniMoeVisionEncoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from qwenvis.models import qwen2_vl, qwen3_vl
from qwenvis.models.config import Config, Fields, Shapes
from qwenvis.models.family import Family, HubLayout, TensorNames

NAMES = qwen3_vl.MergerNames("ln_q", "mlp.0", "mlp.2", "merger_list")


def config(vision_config: Mapping[str, Any], shapes: Shapes) -> Config:
    """Read a Qwen3OmniMoeVisionEncoderConfig."""
    fields = Fields(vision_config, shapes)
    fields.unused("image_size")  # in published configs; the size of the grid is num_position_embeddings
    fields.only("apply_vit_abs_pos_embed", True)
    return qwen3_vl.config(vision_config, shapes, NAMES)


FAMILY = Family(
    config,
    partial(qwen3_vl.Tower, names=NAMES),
    signature_tensors=frozenset({"blocks.0.mlp.linear_fc1.weight", "merger.mlp.0.weight"}),
    published={
        "qwen3-omni-30b-a3b": {**qwen3_vl.LARGE, "out_hidden_size": 2048, **qwen3_vl.LATE},
        "tiny-qwen3-omni": {**qwen3_vl.TINY, "deepstack_visual_indexes": [0, 2]},
    },
    tensors=TensorNames(("blocks", "merger", "merger_list", "patch_embed", "pos_embed")),
    hub=HubLayout("Qwen3OmniMoe", "thinker.visual.", "thinker_config"),
    processors=qwen2_vl.PROCESSORS._replace(class_normalisation=False),
)
