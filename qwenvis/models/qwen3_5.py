"""Qwen3.5, Qwen3.8 and Qwen4-Exp: the tower of Qwen3-VL without deepstack.

transformers: Qwen3_5VisionModel, Qwen3_5MoeVisionModel, Qwen4ExpVisionModel.
"""

from __future__ import annotations

from functools import partial

from qwenvis.models import qwen3_vl
from qwenvis.models.family import HubLayout
from qwenvis.models.qwen3_vl import LARGE, SHARED, SMALL, TINY

NONE: dict[str, list[int]] = {"deepstack_visual_indexes": []}  # as in the published configs
BASE = {**SHARED, "depth": 12, "hidden_size": 768, "intermediate_size": 3072, "num_heads": 12}
FAMILY = qwen3_vl.FAMILY._replace(
    config=partial(qwen3_vl.config, deepstack=()),
    published={
        "qwen3.5-0.8b": {**BASE, "out_hidden_size": 1024, **NONE},
        "qwen3.5-2b": {**SMALL, "out_hidden_size": 2048, **NONE},
        "qwen3.5-4b": {**SMALL, "out_hidden_size": 2560, **NONE},
        "qwen3.5-9b": {**LARGE, "out_hidden_size": 4096, **NONE},
        "qwen3.5-27b": {**LARGE, "out_hidden_size": 5120, **NONE},
        "qwen3.8-27b": {**LARGE, "out_hidden_size": 5120, **NONE},
        "qwen3.8-flash-next": {**LARGE, "out_hidden_size": 2560, **NONE},
        "tiny-qwen3.5": {**TINY, **NONE},
    },
    hub=HubLayout("Qwen3_5"),
    mmproj=qwen3_vl.MMPROJ,
)
MOE = FAMILY._replace(
    published={
        "qwen3.5-35b-a3b": {**LARGE, "out_hidden_size": 2048, **NONE},
        "qwen3.5-122b": {**LARGE, "out_hidden_size": 3072, **NONE},
        "qwen3.5-397b": {**LARGE, "out_hidden_size": 4096, **NONE},
        "tiny-qwen3.5-moe": {**TINY, **NONE},
    },
    hub=HubLayout("Qwen3_5Moe"),
)
QWEN4_EXP = FAMILY._replace(published={"tiny-qwen4-exp": TINY}, hub=HubLayout("Qwen4Exp"))
