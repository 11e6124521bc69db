"""The families under test: what transformers calls them, and a tiny size of each. One line is one family.

Tests combine them with other parameters; `fraction` chooses the combinations of the default run.
"""

from __future__ import annotations

import importlib
import itertools
import warnings
from typing import Any, NamedTuple

import pytest

from oracle import reference_towers as towers


class Case(NamedTuple):
    """A tower of transformers by the name of its class, the reference's tower, and a tiny size.

    ``module`` is where transformers keeps it, if not under the family's name; ``prefix`` that of its tensors;
    ``mmproj`` the type that llama.cpp's converter writes into its mmproj files, if it writes any.
    """

    model: str
    reference: Any
    tiny: dict[str, Any]
    module: str = ""
    prefix: str = "visual."
    mmproj: str = ""


TINY = {"depth": 4, "hidden_size": 64, "intermediate_size": 100, "num_heads": 4, "out_hidden_size": 96}
SECOND = {"depth": 4, "embed_dim": 64, "hidden_size": 96, "num_heads": 4, "mlp_ratio": 4}
WINDOWS = {**TINY, "fullatt_block_indexes": [1, 3]}
GROUPED = {**WINDOWS, "num_key_value_heads": 2}
THIRD = {**TINY, "num_position_embeddings": 144}
DEEP = {**THIRD, "deepstack_visual_indexes": [0, 2]}
GRID = {**TINY, "image_size": 84}
CLAMPED = {**TINY, "projection_intermediate_size": 120, "swiglu_limit": 0.5}
PADDLE = {
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "intermediate_size": 100,
    "num_attention_heads": 4,
    "image_size": 84,
    "out_hidden_size": 96,
}

FAMILIES = {
    "qwen2_vl": Case("Qwen2VisionTransformerPretrainedModel", towers.qwen2_vl, SECOND, mmproj="qwen2vl_merger"),
    "qwen2_5_vl": Case(
        "Qwen2_5_VisionTransformerPretrainedModel", towers.qwen2_5_vl, WINDOWS, mmproj="qwen2.5vl_merger"
    ),
    "qwen2_5_omni": Case("Qwen2_5OmniVisionEncoder", towers.qwen2_5_omni, WINDOWS, mmproj="qwen2.5o"),
    "exaone4_5": Case("Exaone4_5_VisionModel", towers.qwen2_5_vl, GROUPED, mmproj="exaone4_5"),
    "qwen3_vl": Case("Qwen3VLVisionModel", towers.qwen3_vl, DEEP, mmproj="qwen3vl_merger"),
    "qwen3_vl_moe": Case("Qwen3VLMoeVisionModel", towers.qwen3_vl, DEEP),
    "qwen3_omni_moe": Case("Qwen3OmniMoeVisionEncoder", towers.qwen3_omni_moe, DEEP),
    "qwen3_5": Case("Qwen3_5VisionModel", towers.qwen3_vl, THIRD, mmproj="qwen3vl_merger"),
    "qwen3_5_moe": Case("Qwen3_5MoeVisionModel", towers.qwen3_vl, THIRD),
    "qwen4_exp": Case("Qwen4ExpVisionModel", towers.qwen3_vl, THIRD),
    "cohere_compass": Case("CohereCompassVisionModel", towers.qwen3_vl, DEEP),
    "glm4v": Case("Glm4vVisionModel", towers.glm4v, GRID, mmproj="glm4v"),
    "glm46v": Case("Glm4vVisionModel", towers.glm4v, GRID, module="glm4v"),
    "glm4v_moe": Case("Glm4vMoeVisionModel", towers.glm4v, GRID),
    "glm_ocr": Case("GlmOcrVisionModel", towers.glm_ocr, TINY, mmproj="glm4v"),
    "glm5_next": Case("Glm5NextVisionModel", towers.glm5_next, CLAMPED),
    "paddleocr_vl": Case("PaddleOCRVisionModel", towers.paddleocr_vl, PADDLE, prefix="", mmproj="paddleocr"),
}
# One of each kind of mathematics: what is not about the numbers needs no more.
KINDS = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "glm5_next", "paddleocr_vl"]

# The words of a config that differ between the modules of transformers.
WORDS = {
    "qwen2_vl": {"hidden_size": "embed_dim", "out_hidden_size": "hidden_size"},
    "paddleocr_vl": {"depth": "num_hidden_layers", "num_heads": "num_attention_heads", "in_channels": "num_channels"},
}


def module_of(family):
    """Where transformers keeps the tower."""
    return FAMILIES[family].module or family


def entry(table, family):
    """What a table says of a family, else of the family whose module it has; nothing of a new one."""
    return table.get(family) or table.get(module_of(family), {})


def model_class(family):
    """The tower of transformers; its config_class is that of its config."""
    case, module = FAMILIES[family], module_of(family)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(importlib.import_module(f"transformers.models.{module}.modeling_{module}"), case.model)


def sized(family, **sizes):
    """Sizes in the words of the family's config."""
    words = entry(WORDS, family)
    return {words.get(name, name): value for name, value in sizes.items()}


def tower(family, config, weights, pixel_values, grid_thw):
    """Run the family's reference: pixel_values (n, 3 · temporal · patch²), grid_thw (items, 3) -> `Features`."""
    return FAMILIES[family].reference(config, weights, pixel_values, grid_thw)


def fraction(share, *axes):
    """Every combination of values, one of each axis; all of them but one in ``share`` are marked as slow.

    It is a fractional factorial design, as a Latin square is: the sum of a combination's places on the axes decides.
    So any two values of different axes meet by default, if a third axis has ``share`` values or more.
    """
    cases = itertools.product(*map(enumerate, axes))
    chosen = [([value for _, value in case], sum(place for place, _ in case) % share == 0) for case in cases]
    return [pytest.param(*values, marks=() if by_default else pytest.mark.slow) for values, by_default in chosen]
