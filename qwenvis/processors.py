"""Which resizing, limits and normalisation a checkpoint's preprocessor config asks for.

A still image is resized to sides that whole merge units fill (`resizing`; in transformers ``smart_resize``), its bytes
are rescaled and normalised, and it is cut into patches. This room turns the preprocessor config into those numbers and
refuses a config that asks for other steps. Formulas: ``Qwen2VLImageProcessorPil`` of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwenvis import resizing
from qwenvis.errors import ConfigError, InputError, LimitError

# Defaults of transformers' class, for what a preprocessor config leaves out.
CLASS_MIN_PIXELS = 56 * 56
CLASS_MAX_PIXELS = 28 * 28 * 1280
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# Four times the largest max_pixels of a published checkpoint (16,777,216, Qwen3-VL): 1.6 GB of pixel_values.
MAX_RESIZED_PIXELS = 2**26

# The class names under which transformers has published this one resizing. `Fast` is the torchvision form: its pixels
# differ from Pillow's by rounding.
KNOWN_TYPES = (
    "Qwen2VLImageProcessor",
    "Qwen2VLImageProcessorFast",
    "Qwen2VLImageProcessorPil",
    "Qwen2_5_VLImageProcessor",
)
BICUBIC = 3  # PIL.Image.Resampling.BICUBIC, as preprocessor configs write it


@dataclass(frozen=True)
class ImageProcessor:
    """The numbers that turn a still image into patches. Sizes in pixels; ``mean`` and ``std`` per channel of RGB."""

    patch_size: int
    merge_size: int
    temporal_patch_size: int
    min_pixels: int = CLASS_MIN_PIXELS
    max_pixels: int = CLASS_MAX_PIXELS
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    rescale_factor: float = 1 / 255

    @classmethod
    def from_config(
        cls,
        preprocessor: Mapping[str, Any],
        *,
        patch_size: int,
        merge_size: int,
        temporal_patch_size: int,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
    ) -> ImageProcessor:
        """Read a checkpoint's preprocessor config; the sizes are the tower's, the limits override the config's.

        Limits come from ``min_pixels``/``max_pixels``, else from the edges of ``size`` (areas, despite their names),
        else, where the config has no ``size``, from transformers' class.

        An empty ``preprocessor`` means that the checkpoint has none. transformers then refuses, and so does this:
        the defaults of its class would quietly shrink images to a twelfth of what the published checkpoints allow.
        With both limits given, nothing is guessed and CLIP's mean and std hold.

        Raises ConfigError for a config that is missing or asks for other steps, InputError for limits that cannot be.
        """
        if not preprocessor and (min_pixels is None or max_pixels is None):
            raise ConfigError(
                "the checkpoint has no preprocessor_config.json (nor a processor_config.json with an image_processor), "
                "so its image size limits are unknown; copy the file from the model it was made from, or pass both "
                "min_pixels and max_pixels"
            )
        config = {key: value for key, value in preprocessor.items() if value is not None}
        tower = {"patch_size": patch_size, "merge_size": merge_size, "temporal_patch_size": temporal_patch_size}
        _refuse_other_steps(config, tower)
        smallest, largest = _limits(config)
        processor = cls(
            **tower,
            min_pixels=smallest,
            max_pixels=largest,
            mean=_channels(config, "image_mean", CLIP_MEAN),
            std=_channels(config, "image_std", CLIP_STD),
            rescale_factor=_number(config.get("rescale_factor", 1 / 255), "rescale_factor"),
        )
        if not np.isfinite(processor.lut).all():
            raise ConfigError("preprocessor config: image_mean, image_std, rescale_factor give infinite pixel values")
        return processor.with_limits(min_pixels, max_pixels)

    def with_limits(self, min_pixels: int | None = None, max_pixels: int | None = None) -> ImageProcessor:
        """Return the same with other limits, in pixels; None keeps one. Raises InputError for limits that cannot be."""
        smallest = self.min_pixels if min_pixels is None else _pixels(min_pixels, "min_pixels", InputError)
        largest = self.max_pixels if max_pixels is None else _pixels(max_pixels, "max_pixels", InputError)
        if smallest > largest:
            raise InputError(
                f"min_pixels {smallest}{' of the checkpoint' * (min_pixels is None)} is larger than "
                f"max_pixels {largest}{' of the checkpoint' * (max_pixels is None)}; pass both"
            )
        return replace(self, min_pixels=smallest, max_pixels=largest)

    @property
    def columns(self) -> int:
        """Entries of one patch, the columns of ``pixel_values``: 3 x temporal_patch_size x patch_size²."""
        return 3 * self.temporal_patch_size * self.patch_size**2

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) that an image is resized to.

        Raises ImageError for a size that `resizing` refuses, LimitError beyond ``MAX_RESIZED_PIXELS``.
        """
        factor = self.patch_size * self.merge_size
        rows, columns = resizing.area(height, width, factor, self.min_pixels, self.max_pixels)
        if rows * columns > MAX_RESIZED_PIXELS:
            raise LimitError(
                f"an image of {height} x {width} would be resized to {rows} x {columns}, {rows * columns:,} pixels; "
                f"at most {MAX_RESIZED_PIXELS:,} are allowed: lower max_pixels (now {self.max_pixels:,})"
            )
        return rows, columns

    def grid(self, height: int, width: int) -> tuple[int, int, int]:
        """Return the grid (1, rows, columns) of patches of an image; raises as ``resized``."""
        resized_height, resized_width = self.resized(height, width)
        return 1, resized_height // self.patch_size, resized_width // self.patch_size

    @cached_property
    def lut(self) -> NDArray[np.float32]:
        """The value of each byte, (3 channels, 256) float32, read-only.

        As ``rescale`` and ``normalize`` of transformers.image_transforms round: the product in float64, then float32.
        """
        with np.errstate(all="ignore"):
            rescaled = (np.arange(256, dtype=np.float64) * self.rescale_factor).astype(np.float32)
            mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
            lut = np.ascontiguousarray(((rescaled[:, None] - mean) / std).T)
        lut.flags.writeable = False
        return lut


# family -> how its stills are prepared
PROCESSORS: dict[str, type[ImageProcessor]] = {
    "qwen2_vl": ImageProcessor,
    "qwen2_5_vl": ImageProcessor,
}


def _refuse_other_steps(config: Mapping[str, Any], tower: Mapping[str, int]) -> None:
    """Refuse, by name, what would make other pixels than ours."""
    name = config.get("image_processor_type", KNOWN_TYPES[0])
    if name not in KNOWN_TYPES:
        raise ConfigError(
            f"preprocessor config: image_processor_type {name!r} is unknown; known are {', '.join(KNOWN_TYPES)}"
        )
    for key in ("do_resize", "do_rescale", "do_normalize"):
        if not config.get(key, True):
            raise ConfigError(f"preprocessor config: {key} is {config[key]!r}; only images with {key} are supported")
    if config.get("resample", BICUBIC) not in (BICUBIC, "bicubic"):
        raise ConfigError(f"preprocessor config: resample is {config['resample']!r}; only 3 (bicubic) is supported")
    for key, value in tower.items():
        if config.get(key, value) != value:
            raise ConfigError(f"preprocessor config: {key} is {config[key]!r}, but the tower's is {value}")


def _limits(config: Mapping[str, Any]) -> tuple[int, int]:
    """(min_pixels, max_pixels) of a config without nulls, in the precedence of transformers."""
    size = config.get("size", {"shortest_edge": CLASS_MIN_PIXELS, "longest_edge": CLASS_MAX_PIXELS})
    if not isinstance(size, Mapping):
        raise ConfigError(f"preprocessor config: size is {size!r}; expected shortest_edge and longest_edge")
    found = []
    for key, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        # transformers cannot use a size that spells its edges min_pixels and max_pixels; it can only mean the same.
        for value in (config.get(key), size.get(edge), size.get(key)):
            if value is not None:
                found.append(_pixels(value, f"preprocessor config: {key} (or {edge} of size)", ConfigError))
                break
        else:
            raise ConfigError(f"preprocessor config: size is {dict(size)!r} and has no {edge}, nor is there {key}")
    if found[0] > found[1]:
        raise ConfigError(f"preprocessor config: min_pixels {found[0]} is larger than max_pixels {found[1]}")
    return found[0], found[1]


def _pixels(value: object, name: str, error: type[ConfigError] | type[InputError]) -> int:
    """A limit as a positive int; 1e6 is one too."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 < value < 2**63:
        raise error(f"{name} is {value!r}; expected a whole number of pixels, from 1 to 2**63 - 1")
    return int(value)


def _number(value: object, name: str) -> float:
    # Compared as it is, because an int may be too large to become a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
        raise ConfigError(f"preprocessor config: {name} is {value!r}; expected a number of ordinary size")
    return float(value)


def _channels(config: Mapping[str, Any], key: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """Three numbers, one per channel; one number stands for all three, as in transformers."""
    value = config.get(key, default)
    values = list(value) if isinstance(value, list | tuple) else [value] * 3
    if len(values) != 3:
        raise ConfigError(f"preprocessor config: {key} has {len(values)} numbers; expected 3, one per channel")
    return tuple(_number(entry, key) for entry in values)
