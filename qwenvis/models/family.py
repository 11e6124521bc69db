"""The contract of a family: the statements of its file, and what its tower offers to the rooms above."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from qwenvis.models.config import PATCH_EMBED, Config, Shapes
from qwenvis.models.hub import HubLayout, Processors
from qwenvis.models.mmproj import Mmproj
from qwenvis.nn.workspace import Sizes, Workspace
from qwenvis.weights import Weights

VisionConfig = Mapping[str, Any]

# watch(x, order): the hidden states after the patch embedding and after each block, depth + 1 times; row r of x
# belongs to row order[r] of pixel_values. x is live: whoever keeps it copies it.
Watch = Callable[[np.ndarray, np.ndarray], object]


def unwatched(x: np.ndarray, order: np.ndarray) -> None:
    """Ignore the hidden states."""


@dataclass(frozen=True)
class Features:
    """The arrays that a tower fills, in the order of the items: ``tokens`` (m, out_hidden_size) float32.

    ``deepstack`` holds one array of the same shape for each block that the config names, in the order of the blocks.
    """

    tokens: np.ndarray
    deepstack: Sequence[np.ndarray] = ()


class Tower(Protocol):
    """A vision encoder and its merger, which makes n / merge_size² tokens of n patches."""

    config: Config

    def sizes(self, grid_thw: np.ndarray) -> Sizes:
        """Return the workspace of one forward pass over ``grid_thw`` (items, 3)."""

    def segments(self, grid_thw: np.ndarray) -> list[np.ndarray]:
        """Return the ``cu_seqlens`` of each block: the bounds of the patches that attend to each other."""

    def forward(
        self, patches: np.ndarray, grid_thw: np.ndarray, ws: Workspace, out: Features, watch: Watch = unwatched
    ) -> Features:
        """Encode patches (n, C·T·p²), in the order of ``pixel_values``, into the arrays of ``out``; return ``out``."""


class TensorNames(NamedTuple):
    """The names that tell a tower's tensors from the other tensors of a checkpoint.

    ``parts`` are regular expressions for the names up to a dot. The tensors behind the prefix of the patch embedding
    all belong to the tower, unless there is no prefix or the family shares its prefix with other parts of the model.
    """

    parts: tuple[str, ...]
    patch_embedding: str = PATCH_EMBED  # exactly one tensor of each checkpoint ends in this name
    shares_prefix: bool = False


class Family(NamedTuple):
    """The statements of one family: its mathematics, its tensors and configs, and its files elsewhere.

    Names stand for behaviour of the rooms above: `processors` has a class for each name of a processor, `sources` a
    form of config.json for each layout, `checkpoints` reads an mmproj file by its table of names.

    ``config`` reads a ``vision_config``, ``tower`` builds the tower that the config describes. Only towers of the same
    mathematics have all ``signature_tensors``. ``published`` are the ``vision_config`` objects of published checkpoints
    and of a tiny one (``tiny-...``), by the names of their presets. ``mmproj`` is None for a family that llama.cpp's
    converter does not know.
    """

    config: Callable[[VisionConfig, Shapes], Config]
    tower: Callable[[Config, Weights], Tower]
    signature_tensors: frozenset[str]
    published: Mapping[str, VisionConfig]
    tensors: TensorNames
    hub: HubLayout
    processors: Processors
    mmproj: Mmproj | None = None
