"""What a file of this room states about its family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from qwenvis.models.config import Config, Shapes
from qwenvis.models.tower import Tower
from qwenvis.weights import Weights

VisionConfig = Mapping[str, Any]


class Family(NamedTuple):
    """How a family reads its config, and what it builds from it.

    ``marks`` are tensors that towers of other mathematics do not all have. ``published`` are the sizes of published
    checkpoints, and of a tiny one, by the name of their preset: each a ``vision_config``.
    """

    config: Callable[[VisionConfig, Shapes], Config]
    tower: Callable[[Config, Weights], Tower]
    signature_tensors: frozenset[str]
    published: Mapping[str, VisionConfig]
