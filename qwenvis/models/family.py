"""The contract between a family and the rooms above: the methods of its tower, and the statements of its file.

A family states names and numbers. The rooms above look up the behaviour that a name stands for: `processors` has a
class for each name of a processor, `sources` writes a config.json and `checkpoints` reads an mmproj file as stated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from qwenvis.models.config import PATCH_EMBED, Config, Shapes
from qwenvis.models.mmproj_names import MmprojNames
from qwenvis.nn.workspace import Sizes, Workspace
from qwenvis.weights import Weights

VisionConfig = Mapping[str, Any]

# watch(x, order): the hidden states after the patch embedding and after each block, depth + 1 times; row r of x
# belongs to row order[r] of pixel_values. x changes after the call: copy it to keep it.
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
    """The names that distinguish a tower's tensors from the other tensors of a checkpoint.

    Exactly one tensor of a checkpoint ends in ``patch_embedding``; what stands before that is the prefix. All tensors
    behind a prefix belong to the tower, unless ``shares_prefix``. Without a prefix, or behind a shared one, they are
    the tensors whose names begin with one of the ``parts``, regular expressions for what stands before a dot.
    """

    parts: tuple[str, ...]
    patch_embedding: str = PATCH_EMBED
    shares_prefix: bool = False


class HubLayout(NamedTuple):
    """The config.json and the tensors of a family's checkpoints on the Hub.

    Names of transformers' classes begin with ``classes``: Qwen2VL of Qwen2VLForConditionalGeneration. ``prefix`` stands
    before the names of the tower's tensors. ``holder`` is the key of the object that holds the ``vision_config``, empty
    for config.json itself.

    Where the fields of the language model stand in config.json itself, not in a ``text_config``, ``language_models``
    are those of each published size, by their hidden_size.
    """

    classes: str
    prefix: str = "model.visual."
    holder: str = ""
    language_models: Mapping[int, Mapping[str, int]] = {}


CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def edges(smallest: int, largest: int) -> dict[str, Any]:
    """Return limits as the ``size`` of a preprocessor config: areas or volumes, despite the names of its edges."""
    return {"size": {"shortest_edge": smallest, "longest_edge": largest}}


class Processors(NamedTuple):
    """The processors of a family, by the names of transformers' classes, and the fields of their published configs.

    ``image`` is the ``image_processor_type`` of published configs. ``video`` is the class that AutoVideoProcessor
    chooses, empty where it has none. ``limits`` are those of images; without ``video_limits``, videos have the same.

    Without ``auto``, AutoImageProcessor has no class for the family, so a preprocessor config must name one. With
    ``class_normalisation``, published configs have the mean and std of the class, which a checkpoint without a config
    may take for granted.
    """

    image: str
    video: str
    limits: Mapping[str, Any]
    normalisation: Mapping[str, Any] = CLIP
    video_limits: Mapping[str, Any] = {}
    auto: bool = True
    class_normalisation: bool = True


class Mmproj(NamedTuple):
    """The mmproj files that llama.cpp's converter makes of a family's checkpoints.

    ``projector_type`` is their ``clip.projector_type``. Families may share a type: some names of tensors start with the
    ``signature``, and of the families whose signature is there, the one with the longest is right.

    ``counts`` and ``epsilons`` are fields of the ``vision_config``, with the keys of the metadata that hold them. With
    ``windows``, the metadata says which blocks attend to whole frames. With ``image_size``, the ``vision_config``
    states the side of the learned grid of positions as the size of an image.

    ``unread`` are superfluous tensors of an old converter, with the shapes by which they are known. With
    ``published_limits``, a file that states no limits of images has those of `Processors`.
    """

    projector_type: str
    names: MmprojNames
    signature: str = "v."
    counts: Mapping[str, str] = {}
    epsilons: Mapping[str, str] = {}
    windows: bool = False
    image_size: bool = False
    unread: Mapping[str, tuple[int, ...]] = {}
    published_limits: bool = True


class Family(NamedTuple):
    """The statements of one family.

    ``config`` reads a ``vision_config``, held against the shapes of the tensors, and ``tower`` builds the tower that a
    config describes. Only towers of the same mathematics have all ``signature_tensors``. ``published`` are the
    ``vision_config`` objects of published checkpoints, by the names of their presets, and of a tiny one, ``tiny-...``.
    ``mmproj`` is None for a family that llama.cpp's converter does not know.
    """

    config: Callable[[VisionConfig, Shapes], Config]
    tower: Callable[[Config, Weights], Tower]
    signature_tensors: frozenset[str]
    published: Mapping[str, VisionConfig]
    tensors: TensorNames
    hub: HubLayout
    processors: Processors
    mmproj: Mmproj | None = None
