"""Qwen3-Omni: the tower of Qwen3-VL, its mergers under other names.

transformers: Qwen3OmniMoeVisionEncoder.
"""

from __future__ import annotations

from functools import partial

from qwenvis.models import qwen3_vl
from qwenvis.models.family import Family

NAMES = qwen3_vl.Names("ln_q", "mlp.0", "mlp.2", "merger_list")
FAMILY = Family(
    partial(qwen3_vl.config, names=NAMES),
    partial(qwen3_vl.Tower, names=NAMES),
    marks=frozenset({"blocks.0.mlp.linear_fc1.weight", "merger.mlp.0.weight"}),
    published={
        "qwen3-omni-30b-a3b": {**qwen3_vl.LARGE, "out_hidden_size": 2048, **qwen3_vl.LATE},
        "tiny-qwen3-omni": {**qwen3_vl.TINY, "deepstack_visual_indexes": [0, 2]},
    },
)
