"""The families under test: what transformers calls them, and a tiny size of each. One line is one family."""

from __future__ import annotations

import importlib
import warnings
from typing import Any, NamedTuple

import reference_towers as towers


class Case(NamedTuple):
    """A tower of transformers, by the names of its module and classes, its tiny size, and the reference's tower."""

    module: str
    model: str
    config: str
    reference: Any
    tiny: dict[str, Any]
    prefix: str = "visual."

    def classes(self):
        """The classes of the model and of its config."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            package = f"transformers.models.{self.module}"
            modeling = importlib.import_module(f"{package}.modeling_{self.module}")
            configuration = importlib.import_module(f"{package}.configuration_{self.module}")
        return getattr(modeling, self.model), getattr(configuration, self.config)


TINY = {"depth": 4, "hidden_size": 64, "intermediate_size": 100, "num_heads": 4, "out_hidden_size": 96}
SECOND = {"depth": 4, "embed_dim": 64, "hidden_size": 96, "num_heads": 4, "mlp_ratio": 4}
WINDOWS = {**TINY, "fullatt_block_indexes": [1, 3]}
THIRD = {**TINY, "num_position_embeddings": 144}
DEEP = {**THIRD, "deepstack_visual_indexes": [0, 2]}
GRID = {**TINY, "image_size": 84}
PADDLE = {
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "intermediate_size": 100,
    "num_attention_heads": 4,
    "image_size": 84,
    "out_hidden_size": 96,
}

FAMILIES = {
    "qwen2_vl": Case(
        "qwen2_vl", "Qwen2VisionTransformerPretrainedModel", "Qwen2VLVisionConfig", towers.qwen2_vl, SECOND
    ),
    "qwen2_5_vl": Case(
        "qwen2_5_vl",
        "Qwen2_5_VisionTransformerPretrainedModel",
        "Qwen2_5_VLVisionConfig",
        towers.qwen2_5_vl,
        WINDOWS,
    ),
    "qwen2_5_omni": Case(
        "qwen2_5_omni",
        "Qwen2_5OmniVisionEncoder",
        "Qwen2_5OmniVisionEncoderConfig",
        towers.qwen2_5_omni,
        WINDOWS,
    ),
    "qwen3_vl": Case("qwen3_vl", "Qwen3VLVisionModel", "Qwen3VLVisionConfig", towers.qwen3_vl, DEEP),
    "qwen3_vl_moe": Case("qwen3_vl_moe", "Qwen3VLMoeVisionModel", "Qwen3VLMoeVisionConfig", towers.qwen3_vl, DEEP),
    "qwen3_omni_moe": Case(
        "qwen3_omni_moe",
        "Qwen3OmniMoeVisionEncoder",
        "Qwen3OmniMoeVisionEncoderConfig",
        towers.qwen3_omni_moe,
        DEEP,
    ),
    "qwen3_5": Case("qwen3_5", "Qwen3_5VisionModel", "Qwen3_5VisionConfig", towers.qwen3_vl, THIRD),
    "qwen3_5_moe": Case("qwen3_5_moe", "Qwen3_5MoeVisionModel", "Qwen3_5MoeVisionConfig", towers.qwen3_vl, THIRD),
    "qwen4_exp": Case("qwen4_exp", "Qwen4ExpVisionModel", "Qwen4ExpVisionConfig", towers.qwen3_vl, THIRD),
    "cohere_compass": Case(
        "cohere_compass", "CohereCompassVisionModel", "CohereCompassVisionConfig", towers.qwen3_vl, DEEP
    ),
    "glm4v": Case("glm4v", "Glm4vVisionModel", "Glm4vVisionConfig", towers.glm4v, GRID),
    "glm46v": Case("glm4v", "Glm4vVisionModel", "Glm4vVisionConfig", towers.glm4v, GRID),
    "glm4v_moe": Case("glm4v_moe", "Glm4vMoeVisionModel", "Glm4vMoeVisionConfig", towers.glm4v, GRID),
    "glm_ocr": Case("glm_ocr", "GlmOcrVisionModel", "GlmOcrVisionConfig", towers.glm_ocr, TINY),
    "glm5_next": Case(
        "glm5_next",
        "Glm5NextVisionModel",
        "Glm5NextVisionConfig",
        towers.glm5_next,
        {**TINY, "projection_intermediate_size": 120, "swiglu_limit": 0.5},
    ),
    "paddleocr_vl": Case(
        "paddleocr_vl",
        "PaddleOCRVisionModel",
        "PaddleOCRVisionConfig",
        towers.paddleocr_vl,
        PADDLE,
        "",
    ),
}
# One of each kind of mathematics: what is not about the numbers needs no more.
KINDS = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "glm5_next", "paddleocr_vl"]

# The words of a config that differ between families.
WORDS = {
    "qwen2_vl": {"hidden_size": "embed_dim", "out_hidden_size": "hidden_size"},
    "paddleocr_vl": {"depth": "num_hidden_layers", "num_heads": "num_attention_heads", "in_channels": "num_channels"},
}


def sized(family, **sizes):
    """Sizes in the words of the family's config."""
    return {WORDS.get(family, {}).get(name, name): value for name, value in sizes.items()}


def tower(family, config, weights, pixel_values, grid_thw):
    """Run the family's reference: pixel_values (n, 3 · temporal · patch²), grid_thw (items, 3) -> `Features`."""
    return FAMILIES[family].reference(config, weights, pixel_values, grid_thw)
