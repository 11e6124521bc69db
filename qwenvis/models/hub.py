"""How the Hub holds the checkpoints of a family: config.json, tensors, and the processors that configs name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def edges(smallest: int, largest: int) -> dict[str, Any]:
    """Return limits as the ``size`` of a preprocessor config: areas or volumes, despite the names of its edges."""
    return {"size": {"shortest_edge": smallest, "longest_edge": largest}}


class HubLayout(NamedTuple):
    """The config.json and the tensors of a family's checkpoints.

    ``classes`` is what transformers' class names begin with: Qwen2VL of Qwen2VLForConditionalGeneration. ``prefix``
    stands before the names of the tower's tensors.

    ``config`` says what holds the ``vision_config``: a model whose language model has a config of its own ("nested"),
    a model whose language model's fields stand beside the ``vision_config`` ("flat"), or the thinker of an Omni model
    ("thinker"). A flat config states the fields of its ``language_models``, by their hidden sizes.
    """

    classes: str
    prefix: str = "model.visual."
    config: Literal["nested", "flat", "thinker"] = "nested"
    language_models: Mapping[int, Mapping[str, int]] = {}


class Processors(NamedTuple):
    """The processors of a family, by the names of transformers' classes, and what published configs say to them.

    ``image`` is the ``image_processor_type`` of published preprocessor configs, ``video`` the class that
    AutoVideoProcessor chooses, empty where it has none. ``limits``, ``normalisation`` and ``video_limits`` are the
    fields of published configs; without ``video_limits``, videos have the limits of images.

    AutoImageProcessor has no class of its own for the families without ``auto``: there a preprocessor config must name
    one. Mean and std of a checkpoint without a preprocessor config are those of the class if ``class_normalisation``,
    otherwise unknown.
    """

    image: str
    video: str
    limits: Mapping[str, Any]
    normalisation: Mapping[str, Any] = CLIP
    video_limits: Mapping[str, Any] = {}
    auto: bool = True
    class_normalisation: bool = True
