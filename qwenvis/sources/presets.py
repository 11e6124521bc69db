"""The presets of ``synthetic:``, with the configs of the checkpoints that they stand for.

A family states the sizes of its towers and their layout on the Hub; both together make a whole config.json here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from qwenvis.models import FAMILIES
from qwenvis.models.family import Family, HubLayout

NEAREST, LONGEST = 3, 100  # names that a message suggests, and characters of a name that may be mistyped
EXAMPLES = ("qwen2.5-vl-7b", "tiny-qwen2-vl")


@dataclass(frozen=True, eq=False)
class Preset:
    """The whole content of a checkpoint's config.json and preprocessor_config.json, and its tower.

    ``prefix`` precedes the names of the tower's tensors, ``hidden_size`` the language model's width.
    """

    family: str
    config: dict[str, Any]
    preprocessor: dict[str, Any]
    prefix: str
    hidden_size: int

    @property
    def holder(self) -> dict[str, Any]:
        """The object in the config that holds the ``vision_config``."""
        key = FAMILIES[self.family].hub.holder
        part: dict[str, Any] = self.config[key] if key else self.config
        return part

    @property
    def vision_config(self) -> dict[str, Any]:
        """The tower's own config."""
        part: dict[str, Any] = self.holder["vision_config"]
        return part


def _preset(family: str, stated: Family, vision_config: Mapping[str, Any]) -> Preset:
    tower, hub = stated.config(vision_config, {}), stated.hub
    around = _omni if hub.holder else _flat if hub.language_models else _nested
    config = {
        "architectures": [f"{hub.classes}ForConditionalGeneration"],
        "model_type": family,
        **around(family, hub, tower.out_hidden_size, vision_config),
    }
    preprocessor = {
        **stated.processors.limits,
        "patch_size": tower.patch_size,
        "temporal_patch_size": tower.temporal_patch_size,
        "merge_size": tower.spatial_merge_size,
        **stated.processors.normalisation,
        "image_processor_type": stated.processors.image,
        "processor_class": f"{hub.classes}Processor",
    }
    return Preset(family, config, preprocessor, hub.prefix, tower.out_hidden_size)


def _flat(family: str, hub: HubLayout, hidden: int, vision_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a language model, whose width is ``hidden``, beside the tower's config."""
    language_model = hub.language_models[hidden]
    head_dim = hidden // language_model["num_attention_heads"]
    side = head_dim * 3 // 16  # of half a head, height and width have 3/8 each and time the rest
    return {
        "hidden_act": "silu",
        "hidden_size": hidden,
        **language_model,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [head_dim // 2 - 2 * side, side, side]},
        "torch_dtype": "bfloat16",
        "vision_config": dict(vision_config),
    }


def _nested(family: str, hub: HubLayout, hidden: int, vision_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a language model, whose width is ``hidden``, and that of the tower."""
    return {
        "text_config": {"hidden_size": hidden, "torch_dtype": "bfloat16"},
        "vision_config": {"model_type": family, **vision_config},
    }


def _omni(family: str, hub: HubLayout, hidden: int, vision_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of an Omni model's thinker, which holds the configs of `_nested`."""
    vision = {"model_type": f"{family}_vision_encoder", **vision_config}
    return {
        hub.holder: {
            "model_type": f"{family}_thinker",
            "text_config": {"hidden_size": hidden},
            "vision_config": vision,
        }
    }


def suggestion(text: str) -> str:
    """Return a hint that names the presets closest to a text, or two examples if none is close."""
    near = get_close_matches(text.lower(), PRESETS, NEAREST) if len(text) <= LONGEST else []
    begun = [name for name in PRESETS if text and name.startswith(text.lower())][:NEAREST]
    named = " or ".join(f"synthetic:{name}" for name in near or begun or EXAMPLES)
    return f"presets are written as {named} (`qwenvis info` lists them)"


PRESETS: dict[str, Preset] = {
    name: _preset(family, stated, vision_config)
    for family, stated in FAMILIES.items()
    for name, vision_config in stated.published.items()
}
