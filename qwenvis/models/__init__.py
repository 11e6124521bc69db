"""The families of towers: one file each, one line each in `FAMILIES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from qwenvis.errors import CheckpointError, ConfigError
from qwenvis.models import qwen2_5_vl, qwen2_vl
from qwenvis.models.asked import Asked
from qwenvis.models.config import Config, Shapes
from qwenvis.models.features import Features, Watch
from qwenvis.models.relatives import difference
from qwenvis.models.tower import Tower
from qwenvis.weights import Weights

__all__ = ["FAMILIES", "Config", "Family", "Features", "Tower", "Watch", "build", "detect"]


class Family(NamedTuple):
    """How a family reads its config, what it builds from it, and tensors that no other family has all of."""

    config: Callable[[Mapping[str, Any], Shapes], Config]
    tower: Callable[[Config, Weights], Tower]
    marks: frozenset[str]


FAMILIES: dict[str, Family] = {
    "qwen2_vl": Family(qwen2_vl.config, qwen2_vl.Tower, frozenset({"blocks.0.mlp.fc1.weight", "blocks.0.norm1.bias"})),
    "qwen2_5_vl": Family(
        qwen2_5_vl.config, qwen2_5_vl.Tower, frozenset({"blocks.0.mlp.gate_proj.weight", "blocks.0.attn.qkv.weight"})
    ),
}


def detect(model_type: str, vision_config: Mapping[str, Any], shapes: Shapes) -> str:
    """The family of a checkpoint: what its config says, held against the names of its tensors.

    Raises ConfigError for a model_type that no family has, CheckpointError where the tensors are another family's.
    """
    family = str(vision_config.get("model_type") or model_type).removesuffix("_vision")
    if family not in FAMILIES:
        why = f" ({difference(family)})" if difference(family) else ""
        known = ", ".join(FAMILIES)
        raise ConfigError(f"model_type {family or 'missing'!r} is no tower of this version{why}, which has {known}")
    for other, (_, _, marks) in FAMILIES.items():
        if shapes and other != family and marks <= shapes.keys() and not FAMILIES[family].marks <= shapes.keys():
            raise CheckpointError(f"the config says {family}, but the tensors are those of {other}")
    return family


def build(family: str, vision_config: Mapping[str, Any], shapes: Shapes, format: str = "f32") -> tuple[Tower, Weights]:
    """A tower without its weights, which will be packed in ``format``, and all that it asks for.

    Raises ConfigError for fields that the family does not read and that may change the mathematics.
    """
    asked, weights = Asked(vision_config), Weights(format=format)
    config = FAMILIES[family].config(asked, shapes)
    asked.refuse_unasked()
    return FAMILIES[family].tower(config, weights), weights
