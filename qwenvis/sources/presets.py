"""The checkpoints that `synthetic:` can make: what the config.json of each says around its tower.

The sizes of a tower are stated by its family (`models`); this room adds the language model's, the preprocessor config
and the prefix of the tensors, as the Hub has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple

from qwenvis.models import FAMILIES

CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}

NEAREST, LONGEST = 3, 100  # names that a message suggests, and characters of a name that may be mistyped
EXAMPLES = ("qwen2.5-vl-7b", "tiny-qwen2-vl")


@dataclass(frozen=True, eq=False)
class Preset:
    """The whole content of a checkpoint's config.json and preprocessor_config.json, and its tower.

    ``prefix`` is what stands before the names of the tower's tensors, ``hidden_size`` the language model's width.
    """

    family: str
    config: dict[str, Any]
    preprocessor: dict[str, Any]
    prefix: str
    hidden_size: int

    @property
    def holder(self) -> dict[str, Any]:
        """The part of the config that holds the tower's."""
        part: dict[str, Any] = self.config.get("thinker_config", self.config)
        return part

    @property
    def vision_config(self) -> dict[str, Any]:
        """The tower's own config."""
        part: dict[str, Any] = self.holder["vision_config"]
        return part


# The language model of each published size of Qwen2-VL and Qwen2.5-VL, in the words of its config.json, by its width:
# intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads, vocab_size.
_LANGUAGE_MODELS = {
    96: (192, 2, 4, 2, 1024),
    1536: (8960, 28, 12, 2, 151936),
    2048: (11008, 36, 16, 2, 151936),
    3584: (18944, 28, 28, 4, 152064),
    5120: (27648, 64, 40, 8, 152064),
    8192: (29568, 80, 64, 8, 152064),
}


def _flat(model_type: str, classes: str, hidden: int, vision_config: Mapping[str, Any]) -> dict[str, Any]:
    """Of Qwen2-VL and Qwen2.5-VL: the language model's fields stand beside the tower's config."""
    intermediate, layers, heads, key_value_heads, vocabulary = _LANGUAGE_MODELS[hidden]
    side = hidden // heads * 3 // 16  # of half a head, height and width have 3/8 each and time the rest
    return {
        "architectures": [f"{classes}ForConditionalGeneration"],
        "model_type": model_type,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "vocab_size": vocabulary,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [hidden // heads // 2 - 2 * side, side, side]},
        "torch_dtype": "bfloat16",
        "vision_config": dict(vision_config),
    }


def _nested(model_type: str, classes: str, hidden: int, vision_config: Mapping[str, Any]) -> dict[str, Any]:
    """Of what came later: the language model has a config of its own."""
    return {
        "architectures": [f"{classes}ForConditionalGeneration"],
        "model_type": model_type,
        "text_config": {"hidden_size": hidden, "torch_dtype": "bfloat16"},
        "vision_config": {"model_type": model_type, **vision_config},
    }


def _thinker(model_type: str, classes: str, hidden: int, vision_config: Mapping[str, Any]) -> dict[str, Any]:
    """Of the Omni models, where a thinker holds both."""
    vision = {"model_type": f"{model_type}_vision_encoder", **vision_config}
    part = {"model_type": f"{model_type}_thinker", "text_config": {"hidden_size": hidden}, "vision_config": vision}
    return {"architectures": [f"{classes}ForConditionalGeneration"], "model_type": model_type, "thinker_config": part}


class _Images(NamedTuple):
    """A preprocessor config, but for the sizes that the tower has too."""

    limits: dict[str, Any]
    normalisation: dict[str, Any]
    kind: str


def _edges(smallest: int, largest: int) -> dict[str, Any]:
    return {"size": {"shortest_edge": smallest, "longest_edge": largest}}  # areas, despite the names


_QWEN2 = _Images({"min_pixels": 3136, "max_pixels": 12845056}, CLIP, "Qwen2VLImageProcessor")
_QWEN3 = _Images(_edges(65536, 16777216), HALF, "Qwen2VLImageProcessorFast")
_COMPASS = _Images(_edges(3136, 1003520), CLIP, "CohereCompassImageProcessor")
_GLM = _Images(_edges(12544, 9633792), CLIP, "Glm4vImageProcessor")
_GLM46V = _Images(_edges(12544, 9633792), CLIP, "Glm46VImageProcessor")
_GLM5 = _Images({"min_image_tokens": 16, "max_image_tokens": 8000}, CLIP, "Glm5NextImageProcessor")
_PADDLE = _Images({"min_pixels": 147456, "max_pixels": 2359296}, CLIP, "PaddleOCRVLImageProcessor")

# model_type -> names of the classes, layout of config.json, prefix, images, where they are not the usual ones
_LAYOUTS = {
    "qwen2_vl": ("Qwen2VL", _flat, "visual.", _QWEN2),
    "qwen2_5_vl": ("Qwen2_5_VL", _flat, "visual.", _QWEN2),
    "qwen2_5_omni": ("Qwen2_5Omni", _thinker, "thinker.visual.", _QWEN2),
    "qwen3_omni_moe": ("Qwen3OmniMoe", _thinker, "thinker.visual.", _QWEN2),
    "qwen3_vl": ("Qwen3VL", _nested, "model.visual.", _QWEN3),
    "qwen3_vl_moe": ("Qwen3VLMoe", _nested, "model.visual.", _QWEN3),
    "qwen3_5": ("Qwen3_5", _nested, "model.visual.", _QWEN3),
    "qwen3_5_moe": ("Qwen3_5Moe", _nested, "model.visual.", _QWEN3),
    "qwen4_exp": ("Qwen4Exp", _nested, "model.visual.", _QWEN3),
    "cohere_compass": ("CohereCompass", _nested, "model.visual.", _COMPASS),
    "glm4v": ("Glm4v", _nested, "model.visual.", _GLM),
    "glm46v": ("Glm46V", _nested, "model.visual.", _GLM46V),
    "glm4v_moe": ("Glm4vMoe", _nested, "model.visual.", _GLM),
    "glm_ocr": ("GlmOcr", _nested, "model.visual.", _GLM46V),
    "glm5_next": ("Glm5Next", _nested, "model.visual.", _GLM5),
    "paddleocr_vl": ("PaddleOCRVL", _nested, "", _PADDLE),
}


def _preset(family: str, vision_config: Mapping[str, Any]) -> Preset:
    usual = "".join(map(str.capitalize, family.split("_"))), _nested, "model.visual.", _QWEN2
    classes, layout, prefix, images = _LAYOUTS.get(family, usual)
    tower = FAMILIES[family].config(vision_config, {})
    preprocessor = {
        **images.limits,
        "patch_size": tower.patch_size,
        "temporal_patch_size": tower.temporal_patch_size,
        "merge_size": tower.spatial_merge_size,
        **images.normalisation,
        "image_processor_type": images.kind,
        "processor_class": f"{classes}Processor",
    }
    hidden = tower.out_hidden_size
    return Preset(family, layout(family, classes, hidden, vision_config), preprocessor, prefix, hidden)


def suggestion(text: str) -> str:
    """Words that suggest the presets of the names nearest to a text, or two examples where none is near."""
    near = get_close_matches(text.lower(), PRESETS, NEAREST) if len(text) <= LONGEST else []
    begun = [name for name in PRESETS if text and name.startswith(text.lower())][:NEAREST]
    named = " or ".join(f"synthetic:{name}" for name in near or begun or EXAMPLES)
    return f"presets are written as {named} (`qwenvis info` lists them)"


PRESETS: dict[str, Preset] = {
    name: _preset(family, vision_config)
    for family, stated in FAMILIES.items()
    for name, vision_config in stated.published.items()
}
