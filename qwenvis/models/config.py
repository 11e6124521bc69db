"""A tower's config: the numbers that its math asks for, completed as transformers does and held against the tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from qwenvis.errors import CheckpointError, ConfigError, listed, quoted
from qwenvis.io.fields import Section, is_number
from qwenvis.models.strict_config import StrictConfig

Shapes = Mapping[str, tuple[int, ...]]

# No published tower comes near; products of two such sizes still fit 64 bits many times over.
LARGEST = 1 << 20
LARGEST_DEPTH = 1 << 10
LARGEST_MERGE = 16  # it is squared, and multiplies the width
LARGEST_THETA = 1e9
LARGEST_NUMBER = 1e30

SIDES = {"image_size", "patch_size", "temporal_patch_size"}  # newer configs may list them, one for each axis


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


class Fields(Section):
    """A ``vision_config`` to read from: typed values, with the tensors' own shapes as judge and as default."""

    def __init__(self, vision_config: Mapping[str, Any], shapes: Shapes) -> None:
        super().__init__(
            vision_config if isinstance(vision_config, StrictConfig) else StrictConfig(vision_config), "vision_config"
        )
        self.shapes = shapes

    def size(self, name: str, default: int, tensor: str = "", axis: int = 0) -> int:
        """A size from the config; where it is left out, from ``tensor``'s shape, else transformers' default.

        Raises ConfigError where both speak and differ, and for what is no positive integer.
        """
        found = self.found(tensor, axis)
        if name not in self:
            return default if found is None else found
        value = self.integer(name, default)
        if found is not None and found != value:
            shape = self.shapes[tensor]
            raise ConfigError(f"{self.place} says {name} = {value}, but {tensor} is {shape}, which makes it {found}")
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
        """A positive integer; of `SIDES`, a list of equal ones counts as one."""
        value = self.get(name)
        if name in SIDES and isinstance(value, list) and value and all(repr(side) == repr(value[0]) for side in value):
            return Section({name: value[0]}, self.place).whole(name, default, 1, largest)
        return self.whole(name, default, 1, largest)

    def either(self, name: str, alias: str, default: int, largest: int = LARGEST) -> tuple[str, int]:
        """A positive integer that has two names, and the name by which it is here; where both are, they must agree."""
        value, other = (self.integer(each, default, largest) for each in (name, alias))
        if name in self and alias in self and value != other:
            raise ConfigError(f"{self.place} says {name} = {value}, but {alias} = {other}")
        return (name, value) if name in self else (alias, other)

    def depth(self, default: int, blocks: str = "blocks.") -> int:
        """Number of blocks, in the config and among the tensors, whose names begin with ``blocks``."""
        numbers = {name[len(blocks) :].split(".")[0] for name in self.shapes if name.startswith(blocks)}
        name, value = self.either("depth", "num_hidden_layers", len(numbers) or default, LARGEST_DEPTH)
        if not self.shapes or numbers == {str(i) for i in range(value)}:
            return value
        absent = [f"{blocks}{i}" for i in range(value) if str(i) not in numbers]
        beyond = sorted(f"{blocks}{number}" for number in numbers - {str(i) for i in range(value)})
        said = f"{self.place} says {name} = {value}" if name in self else f"{value} blocks have tensors"
        but = f"has no {listed(absent)}" if absent else f"has {listed(beyond)} too"
        raise ConfigError(f"{said}, blocks 0 to {value - 1}, but the checkpoint {but}")

    def scaled(self, name: str, default: float, width: int, tensor: str) -> int:
        """A size that the config states as a ratio to the width; where it is left out, as in `size`."""
        found = self.found(tensor)
        if name not in self:
            return found or int(width * default)
        ratio = self[name]
        if not is_number(ratio) or not 1 <= ratio * width <= LARGEST:
            raise self.refused(name, f"a number that makes a size of {width}")
        if found not in (None, int(width * ratio)):
            said = f"{self.place} says {name} = {ratio}, which makes {int(width * ratio)} of {width}"
            raise ConfigError(f"{said}; {tensor} has {found}")
        return int(width * ratio)

    def num_heads(self, default: int, width: int) -> int:
        """Number of heads, under either of its names; a ``head_dim`` that does not follow from it is refused."""
        _, heads = self.either("num_heads", "num_attention_heads", default)
        if "head_dim" in self and self.integer("head_dim", 1) * heads != width:
            raise self.refused("head_dim", f"that of {heads} heads of a width of {width}")
        return heads

    def positive(self, name: str, default: float) -> float:
        """A positive number."""
        return self.number(name, default, 0, LARGEST_NUMBER)

    def only(self, name: str, value: bool) -> None:
        """A flag of which the mathematics here knows one value; the other is refused."""
        if self.flag(name, value) is not value:
            raise ConfigError(f"{self.place} says {name} = {not value}; this tower knows {value} only")

    def positions(self, image_size: int, patch_size: int, tensor: str) -> int:
        """Places of the learned grid that one image of ``image_size``, the default, would fill: ``tensor``'s rows."""
        image_size, found = self.integer("image_size", image_size), self.found(tensor)
        side = image_size // patch_size
        if side < 1 or found not in (None, side**2):
            said = f"{self.place} says image_size = {image_size}, which makes {side} x {side} positions"
            raise ConfigError(f"{said}; {tensor} has {'at least one' if found is None else found}")
        return side**2

    def unused(self, *names: str) -> None:
        """Fields that a config has and the mathematics has not: read here, so that what nobody reads is unknown."""
        for name in names:
            self.get(name)

    def choice(self, name: str, default: str, allowed: Mapping[str, str]) -> str:
        """What ``allowed`` makes of a word; another word is refused by name."""
        value = self.word(name) if name in self else default
        if value not in allowed:
            raise self.refused(name, " or ".join(allowed))
        return allowed[value]

    def rope_theta(self) -> float:
        """Base of the rotary angles: ``rope_parameters`` of transformers 5, a plain ``rope_theta``, or 10000."""
        parameters, scaling = self.part("rope_parameters"), self.part("rope_scaling")
        rope = scaling or parameters  # in transformers' order
        if unknown := sorted(rope.keys() - {"rope_type", "type", "rope_theta"}):
            raise ConfigError(f"{self.place} asks for rope with {listed(unknown)}; this tower knows axial rope only")
        kind = rope.word("rope_type") or rope.word("type") or "axial"
        if kind not in ("axial", "default"):
            raise ConfigError(f"{self.place} asks for rope {quoted(kind)}; this tower knows axial rope only")
        return (rope if "rope_theta" in rope else self).number("rope_theta", 10000.0, 1, LARGEST_THETA)

    def indexes(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Indexes of blocks; an index beyond the depth names no block, as in transformers."""
        value = super().indexes(name, default)
        if len(value) > LARGEST_DEPTH:
            raise self.refused(name, f"at most {LARGEST_DEPTH} indexes of blocks")
        return value


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
