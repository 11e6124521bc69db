"""A tower's config: the numbers that its math asks for, completed as transformers does and held against the tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from qwenvis.errors import CheckpointError, ConfigError, listed
from qwenvis.models.asked import Asked

Shapes = Mapping[str, tuple[int, ...]]

# No published tower comes near; products of two such sizes still fit 64 bits many times over.
LARGEST = 1 << 20
LARGEST_MERGE = 16  # it is squared, and multiplies the width
LARGEST_THETA = 1e9


@dataclass(frozen=True)
class Config:
    """Sizes of a tower, in the words of transformers' configs. ``hidden_size`` is always the tower's own width."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    out_hidden_size: int
    in_channels: int
    patch_size: int
    temporal_patch_size: int
    spatial_merge_size: int
    hidden_act: str
    rope_theta: float
    window_size: int = 0
    fullatt_block_indexes: tuple[int, ...] = ()
    num_key_value_heads: int = 0  # 0: as many as num_heads
    num_position_embeddings: int = 0
    deepstack_visual_indexes: tuple[int, ...] = ()
    attention_bias: bool = True
    rms_norm_eps: float = 1e-6
    layer_norm_eps: float = 1e-6
    merger_intermediate_size: int = 0  # of a merger with a gated MLP
    swiglu_limit: float = math.inf

    def __post_init__(self) -> None:
        """Refuse sizes that cannot go together."""
        if self.hidden_size % self.num_heads or self.head_dim % 4 or self.head_dim > 256:
            raise ConfigError(
                f"a hidden size of {self.hidden_size} and num_heads = {self.num_heads} give no head_dim that is a "
                "multiple of 4 and at most 256"
            )
        if self.num_heads % self.key_value_heads:
            raise ConfigError(f"num_heads = {self.num_heads} cannot share num_key_value_heads = {self.key_value_heads}")

    @property
    def key_value_heads(self) -> int:
        """Number of heads of keys and of values."""
        return self.num_key_value_heads or self.num_heads

    @property
    def deepstack(self) -> dict[int, int]:
        """Blocks whose hidden state becomes a deepstack output, in their order -> the number of its merger."""
        indexes = self.deepstack_visual_indexes
        return {block: indexes.index(block) for block in sorted(set(indexes)) if block < self.depth}

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_heads

    @property
    def merge_unit(self) -> int:
        """Patches that become one token."""
        return self.spatial_merge_size**2

    @property
    def kernel(self) -> tuple[int, int, int, int]:
        """(channels, frames, height, width) of a patch, as a row of ``pixel_values`` holds them."""
        return self.in_channels, self.temporal_patch_size, self.patch_size, self.patch_size


class Fields:
    """A ``vision_config`` to read from: typed values, with the tensors' own shapes as judge and as default.

    One rule for every field: null is the same as a field that is left out.
    """

    def __init__(self, vision_config: Mapping[str, Any], shapes: Shapes) -> None:
        self.values = vision_config if isinstance(vision_config, Asked) else Asked(vision_config)
        self.shapes = shapes

    def size(self, name: str, default: int, tensor: str = "", axis: int = 0) -> int:
        """A size from the config; where it is left out, from ``tensor``'s shape, else transformers' default.

        Raises ConfigError where both speak and differ, and for what is no positive integer.
        """
        found = self.found(tensor, axis)
        if name not in self.values:
            return default if found is None else found
        value = self.integer(name, default)
        if found is not None and found != value:
            shape = self.shapes[tensor]
            raise ConfigError(f"vision_config says {name} = {value}, but {tensor} is {shape}, which makes it {found}")
        return value

    def found(self, tensor: str, axis: int = 0) -> int | None:
        """The size of a tensor along an axis; None where the checkpoint has no such tensor."""
        if tensor not in self.shapes:
            return None
        shape = self.shapes[tensor]
        if axis >= len(shape) or not 1 <= shape[axis] <= LARGEST:
            raise CheckpointError(
                f"{tensor} is {shape}; expected sizes from 1 to {LARGEST} along {axis + 1} axes or more"
            )
        return shape[axis]

    def integer(self, name: str, default: int, largest: int = LARGEST) -> int:
        """A positive integer; a list of equal ones, as newer configs may write a patch size, counts as one."""
        value = self.values.get(name, default)
        if isinstance(value, list) and value and value.count(value[0]) == len(value):
            value = value[0]
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
            raise ConfigError(f"vision_config says {name} = {value!r}; expected an integer from 1 to {largest}")
        return value

    def either(self, name: str, alias: str, default: int) -> tuple[str, int]:
        """A positive integer that has two names, and the name by which it is here; where both are, they must agree."""
        value, other = self.integer(name, default), self.integer(alias, default)
        if name in self.values and alias in self.values and value != other:
            raise ConfigError(f"vision_config says {name} = {value}, but {alias} = {other}")
        return (name, value) if name in self.values else (alias, other)

    def depth(self, default: int, blocks: str = "blocks.") -> int:
        """Number of blocks, in the config and among the tensors, whose names begin with ``blocks``."""
        numbers = {name[len(blocks) :].split(".")[0] for name in self.shapes if name.startswith(blocks)}
        name, value = self.either("depth", "num_hidden_layers", len(numbers) or default)
        if numbers and numbers != {str(i) for i in range(value)}:
            raise ConfigError(f"vision_config says {name} = {value}, but the checkpoint has {len(numbers)} blocks")
        return value

    def scaled(self, name: str, default: float, width: int, tensor: str) -> int:
        """A size that the config states as a ratio to the width; where it is left out, as in `size`."""
        found = self.found(tensor)
        if name not in self.values:
            return found or int(width * default)
        ratio = self.values[name]
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 1 <= ratio * width <= LARGEST:
            raise ConfigError(f"vision_config says {name} = {ratio!r}; expected a number that makes a size of {width}")
        if found not in (None, int(width * ratio)):
            said = f"vision_config says {name} = {ratio}, which makes {int(width * ratio)} of {width}"
            raise ConfigError(f"{said}; {tensor} has {found}")
        return int(width * ratio)

    def num_heads(self, default: int, width: int) -> int:
        """Number of heads, under either of its names; a ``head_dim`` that does not follow from it is refused."""
        _, heads = self.either("num_heads", "num_attention_heads", default)
        if "head_dim" in self.values and self.values["head_dim"] != width / heads:
            said = f"vision_config says head_dim = {self.values['head_dim']!r}"
            raise ConfigError(f"{said}; {heads} heads of a width of {width} have another")
        return heads

    def number(self, name: str, default: float) -> float:
        """A positive number."""
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ConfigError(f"vision_config says {name} = {value!r}; expected a positive number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise ConfigError(f"vision_config says {name} = {value!r}; expected true or false")
        return value

    def only(self, name: str, value: bool) -> None:
        """A flag of which the mathematics here knows one value; the other is refused."""
        if self.flag(name, value) is not value:
            raise ConfigError(f"vision_config says {name} = {not value}; this tower knows {value} only")

    def positions(self, image_size: int, patch_size: int, tensor: str) -> int:
        """Places of the learned grid that one image of ``image_size``, the default, would fill: ``tensor``'s rows."""
        image_size, found = self.integer("image_size", image_size), self.found(tensor)
        side = image_size // patch_size
        if side < 1 or found not in (None, side**2):
            said = f"vision_config says image_size = {image_size}, which makes {side} x {side} positions"
            raise ConfigError(f"{said}; {tensor} has {'at least one' if found is None else found}")
        return side**2

    def unused(self, *names: str) -> None:
        """Fields that a config has and the mathematics has not: read here, so that what nobody reads is unknown."""
        for name in names:
            self.values.get(name)

    def choice(self, name: str, default: str, allowed: Mapping[str, str]) -> str:
        """What ``allowed`` makes of a word; another word is refused by name."""
        value = self.values.get(name, default)
        if not isinstance(value, str) or value not in allowed:
            raise ConfigError(f"vision_config says {name} = {value!r}; this tower knows {', '.join(allowed)}")
        return allowed[value]

    def rope_theta(self) -> float:
        """Base of the rotary angles: ``rope_parameters`` of transformers 5, a plain ``rope_theta``, or 10000."""
        given = {name: self.values.get(name, {}) for name in ("rope_parameters", "rope_scaling")}
        for name, value in given.items():
            if not isinstance(value, dict):
                raise ConfigError(f"vision_config says {name} = {value!r}; expected an object")
        chosen = given["rope_scaling"] or given["rope_parameters"]  # in transformers' order
        rope = {name: value for name, value in chosen.items() if value is not None}
        if unknown := sorted(rope.keys() - {"rope_type", "type", "rope_theta"}):
            raise ConfigError(f"vision_config asks for rope with {listed(unknown)}; this tower knows axial rope only")
        kind = rope.get("rope_type", rope.get("type", "axial"))
        if kind not in ("axial", "default"):
            raise ConfigError(f"vision_config asks for rope {kind!r}; this tower knows axial rope only")
        value = rope.get("rope_theta", self.values.get("rope_theta", 10000.0))
        if isinstance(value, bool) or not isinstance(value, int | float) or not 1 < value < LARGEST_THETA:
            raise ConfigError(
                f"vision_config says rope_theta = {value!r}; expected a number from 1 to {LARGEST_THETA:g}"
            )
        return float(value)

    def indexes(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Indexes of blocks; those beyond the depth name no block, as in transformers."""
        value = self.values.get(name, default)
        if not isinstance(value, list | tuple) or any(type(i) is not int or i < 0 for i in value):
            raise ConfigError(f"vision_config says {name} = {value!r}; expected indexes of blocks")
        return tuple(value)


class PatchSizes(TypedDict):
    """The fields of `Config` that `patch_sizes` reads."""

    in_channels: int
    temporal_patch_size: int
    patch_size: int
    spatial_merge_size: int


PATCH_EMBED = "patch_embed.proj.weight"


def patch_sizes(fields: Fields, patch_size: int = 14) -> PatchSizes:
    """The sizes that most towers read alike: from the patch embedding (d, channels, frames, p, p)."""
    conv = PATCH_EMBED
    return {
        "in_channels": fields.size("in_channels", 3, conv, 1),
        "temporal_patch_size": fields.size("temporal_patch_size", 2, conv, 2),
        "patch_size": fields.size("patch_size", patch_size, conv, 3),
        "spatial_merge_size": fields.integer("spatial_merge_size", 2, LARGEST_MERGE),
    }
