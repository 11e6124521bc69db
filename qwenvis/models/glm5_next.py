"""GLM-5.3: the tower of GLM-OCR, with gated MLPs whose two halves are clamped.

transformers: Glm5NextVisionModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from qwenvis.models import glm_ocr
from qwenvis.models.config import Config, Fields, Shapes
from qwenvis.models.family import HubLayout, Processors
from qwenvis.nn.layers import ClampedGatedMlp
from qwenvis.weights import Weights


def config(vision_config: Mapping[str, Any], shapes: Shapes) -> Config:
    """Read a Glm5NextVisionConfig: the inner size of the merger has a field of its own."""
    fields = Fields(vision_config, shapes)
    return replace(
        glm_ocr.config(vision_config, shapes),
        merger_intermediate_size=fields.size("projection_intermediate_size", 10240, "merger.gate_proj.weight"),
        swiglu_limit=fields.positive("swiglu_limit", 10.0),
    )


def tower(config: Config, weights: Weights) -> glm_ocr.Tower:
    """Build the tower of GLM-OCR with clamped MLPs."""
    return glm_ocr.Tower(config, weights, partial(ClampedGatedMlp, limit=config.swiglu_limit))


SIZE = {**glm_ocr.SIZE, "out_hidden_size": 4096, "projection_intermediate_size": 10240, "swiglu_limit": 10.0}
FAMILY = glm_ocr.FAMILY._replace(
    config=config,
    tower=tower,
    published={
        "glm-5.3-flash": SIZE,
        "tiny-glm5-next": {**SIZE, **glm_ocr.TINY, "projection_intermediate_size": 120},
    },
    hub=HubLayout("Glm5Next"),
    processors=Processors(
        "Glm5NextImageProcessor", "Glm5NextVideoProcessor", {"min_image_tokens": 16, "max_image_tokens": 8000}
    ),
    mmproj=None,
)
