"""The families of towers: each has a file, or a statement in another family's file, and a line in `REGISTRY`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from qwenvis.errors import CheckpointError, ConfigError, quoted
from qwenvis.models.config import Config, Shapes
from qwenvis.models.family import Family, Features, Tower, Watch
from qwenvis.models.strict_config import StrictConfig
from qwenvis.models.unsupported import difference
from qwenvis.weights import Weights

__all__ = ["FAMILIES", "Config", "Family", "Features", "Tower", "Watch", "build", "detect", "family_of_class", "named"]

# model_type -> the statement of the family, as file.NAME; the same mathematics may have several names
REGISTRY = {
    "qwen2_vl": "qwen2_vl.FAMILY",
    "qwen2_5_vl": "qwen2_5_vl.FAMILY",
    "qwen2_5_omni": "qwen2_5_omni.FAMILY",
    "exaone4_5": "exaone4_5.FAMILY",
    "qwen3_vl": "qwen3_vl.FAMILY",
    "qwen3_vl_moe": "qwen3_vl.MOE",
    "qwen3_omni_moe": "qwen3_omni_moe.FAMILY",
    "qwen3_5": "qwen3_5.FAMILY",
    "qwen3_5_moe": "qwen3_5.MOE",
    "qwen4_exp": "qwen3_5.QWEN4_EXP",
    "cohere_compass": "qwen3_vl.COMPASS",
    "glm4v": "glm4v.FAMILY",
    "glm46v": "glm4v.GLM46V",
    "glm4v_moe": "glm4v.MOE",
    "glm_ocr": "glm_ocr.FAMILY",
    "glm5_next": "glm5_next.FAMILY",
    "paddleocr_vl": "paddleocr_vl.FAMILY",
}
# Suffixes that the components of a model append to its model_type.
COMPONENTS = ("_vision", "_vision_encoder", "_thinker")


def _stated(place: str) -> Family:
    """Return the family that a file of this room states, by ``file.NAME``."""
    file, name = place.split(".")
    family: Family = getattr(import_module(f"{__name__}.{file}"), name)
    return family


FAMILIES: dict[str, Family] = {model_type: _stated(place) for model_type, place in REGISTRY.items()}


def named(model_type: str, vision_config: Mapping[str, Any]) -> list[str]:
    """Return the families that a config names: by the ``model_type`` of the whole model, then by the tower's own.

    Raises ConfigError where neither names a family.
    """
    said = [model_type, str(vision_config.get("model_type") or "")]
    found = [family for family in map(_family, said) if family is not None]
    if not found:
        name = next(filter(difference, said), said[1] or said[0] or "missing")
        why = f" ({difference(name)})" if difference(name) else ""
        raise ConfigError(
            f"model_type {quoted(name)} is not supported by this version{why}, which supports {', '.join(FAMILIES)}"
        )
    return found


def detect(model_type: str, vision_config: Mapping[str, Any], shapes: Shapes) -> str:
    """Return the family that the config of a checkpoint names, after a comparison with the names of its tensors.

    As in transformers, the model_type of the whole model comes before the tower's own: the tower of glm46v has the
    model_type glm4v, and that of glm5_next may have glm_ocr_vision. The tower's own decides where the tensors do not
    fit the family of the whole model. Raises ConfigError where no family is named, and CheckpointError where the
    tensors are those of another family.
    """
    families = named(model_type, vision_config)
    fitting = [
        name for name in [*families, *FAMILIES] if not shapes or FAMILIES[name].signature_tensors <= shapes.keys()
    ]
    if fitting and fitting[0] not in families:
        raise CheckpointError(f"the config says {families[0]}, but the tensors are those of {fitting[0]}")
    return fitting[0] if fitting else families[0]


def _family(model_type: str) -> str | None:
    names = [model_type.removesuffix(part) for part in ("", *COMPONENTS)]
    return next((name for name in names if name in FAMILIES), None)


def family_of_class(name: str, ending: str) -> Family | None:
    """Return the family that a class is named after: qwen3_vl of Qwen3VLImageProcessor, whose ``ending`` is given.

    transformers has no such class; other libraries write its name. None where the class is named after no family.
    """
    words = {family.replace("_", ""): family for family in FAMILIES}
    word = name.removesuffix(ending).replace("_", "").lower()
    return FAMILIES[words[word]] if name.endswith(ending) and word in words else None


def build(family: str, vision_config: Mapping[str, Any], shapes: Shapes, format: str = "f32") -> tuple[Tower, Weights]:
    """Build a tower without its weights, which will be packed in ``format``; return it with its requests for tensors.

    Raises ConfigError for values that the family cannot use, and for fields that the family does not read and that may
    change the mathematics.
    """
    strict, weights = StrictConfig(vision_config), Weights(format=format)
    config = FAMILIES[family].config(strict, shapes)
    strict.refuse_unread()
    return FAMILIES[family].tower(config, weights), weights
