"""The config of a tower: the numbers of its mathematics, with transformers' defaults, checked against the tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from qwenvis.errors import CheckpointError, ConfigError, listed, quoted
from qwenvis.io.fields import Section, is_number
from qwenvis.models.strict_config import StrictConfig

Shapes = Mapping[str, tuple[int, ...]]

# Far beyond any published tower; the product of two such sizes is far below the limit of 64 bits.
LARGEST = 1 << 20
LARGEST_DEPTH = 1 << 10
LARGEST_MERGE = 16  # it is squared, and multiplies the width
LARGEST_THETA = 1e9
LARGEST_NUMBER = 1e30

SIDES = {"image_size", "patch_size", "temporal_patch_size"}  # newer configs may list a size for each axis


@dataclass(frozen=True)
class Config:
    """The sizes of a tower, by the names of transformers' configs. ``hidden_size`` is always the tower's own width."""

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
        """Raise ConfigError for sizes that do not fit together."""
        if self.hidden_size % self.num_heads or self.head_dim % 4 or self.head_dim > 256:
            raise ConfigError(
                f"a hidden size of {self.hidden_size} and num_heads = {self.num_heads} give no head_dim that is a "
                "multiple of 4 and at most 256"
            )
        if self.num_heads % self.key_value_heads:
            raise ConfigError(f"num_heads = {self.num_heads} cannot share num_key_value_heads = {self.key_value_heads}")

    @property
    def key_value_heads(self) -> int:
        """The number of heads of keys, and of values."""
        return self.num_key_value_heads or self.num_heads

    @property
    def deepstack(self) -> dict[int, int]:
        """The blocks whose hidden state becomes a deepstack output, in order -> the index of the merger of each."""
        indexes = self.deepstack_visual_indexes
        return {block: indexes.index(block) for block in sorted(set(indexes)) if block < self.depth}

    @property
    def head_dim(self) -> int:
        """The width of a head."""
        return self.hidden_size // self.num_heads

    @property
    def merge_unit(self) -> int:
        """The number of patches that become one token."""
        return self.spatial_merge_size**2

    @property
    def kernel(self) -> tuple[int, int, int, int]:
        """The (channels, frames, height, width) of a patch, in the order of a row of ``pixel_values``."""
        return self.in_channels, self.temporal_patch_size, self.patch_size, self.patch_size


class Fields(Section):
    """The typed fields of a ``vision_config``; the shapes of the tensors are the defaults, and have to agree."""

    def __init__(self, vision_config: Mapping[str, Any], shapes: Shapes) -> None:
        super().__init__(
            vision_config if isinstance(vision_config, StrictConfig) else StrictConfig(vision_config), "vision_config"
        )
        self.shapes = shapes

    def size(self, name: str, default: int, tensor: str = "", axis: int = 0) -> int:
        """Return a size from the config, else from the shape of ``tensor``, else transformers' default.

        Raises ConfigError where config and shape differ, and for a value that is no positive integer.
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
        """Return the size of a tensor along an axis; None where the checkpoint has no such tensor."""
        if tensor not in self.shapes:
            return None
        shape = self.shapes[tensor]
        if axis >= len(shape) or not 1 <= shape[axis] <= LARGEST:
            raise CheckpointError(
                f"{tensor} is {shape}; expected sizes from 1 to {LARGEST} along {axis + 1} axes or more"
            )
        return shape[axis]

    def integer(self, name: str, default: int, largest: int = LARGEST) -> int:
        """Return a positive integer; for one of `SIDES`, a list of equal integers has the same meaning."""
        value = self.get(name)
        if name in SIDES and isinstance(value, list) and value and all(repr(side) == repr(value[0]) for side in value):
            return Section({name: value[0]}, self.place).whole(name, default, 1, largest)
        return self.whole(name, default, 1, largest)

    def either(self, name: str, alias: str, default: int, largest: int = LARGEST) -> tuple[str, int]:
        """Return the name that a config uses for a field with two names, and its value, a positive integer.

        Raises ConfigError where both names are there with different values.
        """
        value, other = (self.integer(each, default, largest) for each in (name, alias))
        if name in self and alias in self and value != other:
            raise ConfigError(f"{self.place} says {name} = {value}, but {alias} = {other}")
        return (name, value) if name in self else (alias, other)

    def depth(self, default: int, blocks: str = "blocks.") -> int:
        """Return the number of blocks, in the config and among the tensors, whose names begin with ``blocks``.

        Raises ConfigError where the two differ.
        """
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
        """Return a size that the config states as a ratio to the width; defaults and errors are those of `size`."""
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
        """Return the number of heads; raises ConfigError for a ``head_dim`` that does not follow from the number."""
        _, heads = self.either("num_heads", "num_attention_heads", default)
        if "head_dim" in self and self.integer("head_dim", 1) * heads != width:
            raise self.refused("head_dim", f"{width} / {heads}, the hidden size over the number of heads")
        return heads

    def positive(self, name: str, default: float) -> float:
        """Return a positive number."""
        return self.number(name, default, 0, LARGEST_NUMBER)

    def only(self, name: str, value: bool) -> None:
        """Raise ConfigError unless a flag has the ``value`` that this tower supports."""
        if self.flag(name, value) is not value:
            raise ConfigError(f"{self.place} says {name} = {not value}; this tower supports {value} only")

    def positions(self, image_size: int, patch_size: int, tensor: str) -> int:
        """Return the number of learned positions: the patches of a square image whose side is ``image_size``.

        ``image_size`` is the default of the field. Raises ConfigError where ``tensor`` has another number of rows.
        """
        image_size, found = self.integer("image_size", image_size), self.found(tensor)
        side = image_size // patch_size
        if side < 1 or found not in (None, side**2):
            said = f"{self.place} says image_size = {image_size}, which makes {side} x {side} positions"
            raise ConfigError(f"{said}; {tensor} has {'at least one' if found is None else found}")
        return side**2

    def unused(self, *names: str) -> None:
        """Read fields that have no effect on the mathematics of this family, so that they count as known."""
        for name in names:
            self.get(name)

    def choice(self, name: str, default: str, allowed: Mapping[str, str]) -> str:
        """Return the entry of ``allowed`` for a word; raises ConfigError for a word that has no entry."""
        value = self.word(name) if name in self else default
        if value not in allowed:
            raise self.refused(name, " or ".join(allowed))
        return allowed[value]

    def rope_theta(self) -> float:
        """Return the base of the rotary angles: ``rope_parameters`` of transformers 5, ``rope_theta``, or 10000.

        Raises ConfigError for any rope but the axial one.
        """
        parameters, scaling = self.part("rope_parameters"), self.part("rope_scaling")
        rope = scaling or parameters  # in transformers' order
        if unknown := sorted(rope.keys() - {"rope_type", "type", "rope_theta"}):
            raise ConfigError(f"{self.place} requires rope with {listed(unknown)}; this tower supports axial rope only")
        kind = rope.word("rope_type") or rope.word("type") or "axial"
        if kind not in ("axial", "default"):
            raise ConfigError(f"{self.place} requires rope {quoted(kind)}; this tower supports axial rope only")
        return (rope if "rope_theta" in rope else self).number("rope_theta", 10000.0, 1, LARGEST_THETA)

    def indexes(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return indexes of blocks; an index beyond the depth names no block, as in transformers."""
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
    """Read the sizes of a patch, which most configs state alike; a patch embedding is (d, channels, frames, p, p)."""
    conv = PATCH_EMBED
    return {
        "in_channels": fields.size("in_channels", 3, conv, 1),
        "temporal_patch_size": fields.size("temporal_patch_size", 2, conv, 2),
        "patch_size": fields.size("patch_size", patch_size, conv, 3),
        "spatial_merge_size": fields.integer("spatial_merge_size", 2, LARGEST_MERGE),
    }
