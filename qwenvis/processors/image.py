"""The image processors of transformers: the limits, sizes and normalisation that a preprocessor config states.

A still image is resized to sides that whole merge units fill (`smart_resize`, as in transformers), its bytes are
normalised, and it is cut into patches. This room reads the numbers of these steps from a preprocessor config, and
refuses a config that states other steps. Each class stands for one or more of transformers' image processors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qwenvis.errors import ConfigError, ImageLimitError, check_choice
from qwenvis.io.fields import Section
from qwenvis.models import FAMILIES, family_of_class
from qwenvis.processors import smart_resize
from qwenvis.processors.normalize import Normalisation
from qwenvis.processors.pixel_limits import given_limits, read_limits
from qwenvis.processors.smart_resize import FrameSize

# Four times the largest max_pixels of a published checkpoint (16,777,216, Qwen3-VL): 1.6 GB of pixel_values.
MAX_RESIZED_PIXELS = 2**26

PLACE = "preprocessor config"  # in messages about a config without a file
SWITCHES = ("do_resize", "do_rescale", "do_normalize")
STEPS = (*SWITCHES, "resample", "rescale_factor", "image_mean", "image_std")  # fields that change the values of bytes
BICUBIC = 3  # PIL.Image.Resampling.BICUBIC, as preprocessor configs write it

# The choices of an argument; the first is the default.
PIXELS = ("natural", "transformers")
BACKENDS = ("pil", "torchvision")


@dataclass(frozen=True)
class ImageProcessor:
    """The numbers that turn a still image into patches. Sizes are in pixels, limits in the units of the class.

    ``pixels`` chooses how orientation, transparency and depth are read (`images.to_rgb`), ``backend`` which of
    transformers' two implementations resizes and normalises.
    """

    patch_size: int
    merge_size: int
    temporal_patch_size: int
    min_pixels: int
    max_pixels: int
    normalisation: Normalisation
    pixels: str = PIXELS[0]
    backend: str = BACKENDS[0]

    # Of transformers' class: the limits for a config without any, and whether patches are in raster order.
    limits: ClassVar[tuple[int, int]] = (56 * 56, 28 * 28 * 1280)
    raster: ClassVar[bool] = False

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
        pixels: str = PIXELS[0],
        backend: str = BACKENDS[0],
    ) -> ImageProcessor:
        """Read a preprocessor config; the sizes are the tower's, the limits take the place of the config's.

        An empty ``preprocessor`` means that the checkpoint has no config. As transformers, this method then raises an
        error: the defaults of the class would shrink images, without a word, to a twelfth of what published checkpoints
        allow. With both limits given, nothing is guessed: `processor_class` refuses the families whose published
        configs have another mean and std than the class.

        Raises ConfigError for a config that is missing or states other steps, and InputError for arguments out of
        range.
        """
        for name, value, choices in (("pixels", pixels, PIXELS), ("backend", backend, BACKENDS)):
            check_choice(value, name, choices)
        if not preprocessor and None in (min_pixels, max_pixels):
            raise missing("image size limits", ", or pass both min_pixels and max_pixels")
        config = Section(preprocessor, PLACE)
        tower = {"patch_size": patch_size, "merge_size": merge_size, "temporal_patch_size": temporal_patch_size}
        refuse_other_steps(config, tower)
        if backend == "pil" and config.get("resample") == "bicubic":
            raise config.refused("resample", "3: transformers' Pillow classes read the word as bilinear")
        smallest, largest = cls.limits_of(config, patch_size * merge_size, temporal_patch_size)
        normalisation = Normalisation.from_config(config, fused=backend == "torchvision")
        sizes = patch_size, merge_size, temporal_patch_size
        found = cls(*sizes, smallest, largest, normalisation, pixels, backend)
        return found.with_limits(min_pixels, max_pixels)

    @classmethod
    def limits_of(cls, config: Section, factor: int, temporal: int) -> tuple[int, int]:
        """Return the (min_pixels, max_pixels) of a config: areas, despite the names of the edges of ``size``."""
        return read_limits(config, cls.limits)

    def with_limits(self, min_pixels: int | None = None, max_pixels: int | None = None) -> ImageProcessor:
        """Return a processor with other limits in pixels; None keeps a limit. Raises InputError for invalid limits."""
        smallest, largest = given_limits((self.min_pixels, self.max_pixels), min_pixels, max_pixels)
        return replace(self, min_pixels=smallest, max_pixels=largest)

    @property
    def factor(self) -> int:
        """The side of a merge unit in pixels."""
        return self.patch_size * self.merge_size

    @property
    def columns(self) -> int:
        """The number of entries of a patch, a row of ``pixel_values``: 3 x temporal_patch_size x patch_size²."""
        return 3 * self.temporal_patch_size * self.patch_size**2

    @property
    def lut(self) -> NDArray[np.float32]:
        """The value of each byte, (3 channels, 256) float32, read-only."""
        return self.normalisation.lut

    def resized(self, height: int, width: int) -> FrameSize:
        """Return the size that an image of (height, width) is resized to.

        Raises ImageError for a size that `processors.smart_resize` refuses, ImageLimitError beyond
        ``MAX_RESIZED_PIXELS``.
        """
        canvas = rows, columns = self._size(height, width)
        if rows * columns > MAX_RESIZED_PIXELS:
            raise ImageLimitError(
                f"an image of {height} x {width} would be resized to {rows} x {columns}, {rows * columns:,} pixels; "
                f"at most {MAX_RESIZED_PIXELS:,} are allowed: lower max_pixels (now {self.max_pixels:,})"
            )
        return FrameSize(canvas, self._content((height, width), canvas))

    def grid(self, height: int, width: int) -> tuple[int, int, int]:
        """Return the grid (1, rows, columns) of patches of an image of (height, width). Raises as `resized`."""
        return self.patch_grid(self.resized(height, width))

    def patch_grid(self, resized: FrameSize) -> tuple[int, int, int]:
        """Return the grid (1, rows, columns) of patches of a resized image."""
        height, width = resized.canvas
        return 1, height // self.patch_size, width // self.patch_size

    def _size(self, height: int, width: int) -> tuple[int, int]:
        return smart_resize.area(height, width, self.factor, self.min_pixels, self.max_pixels)

    def _content(self, size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
        return canvas


class PaddleOCRVLImageProcessor(ImageProcessor):
    """Short sides are enlarged to a merge unit first, and patches are in raster order."""

    limits = (384 * 384, 1536 * 1536)
    raster = True

    def _size(self, height: int, width: int) -> tuple[int, int]:
        return smart_resize.lifted(height, width, self.factor, self.min_pixels, self.max_pixels)


class Glm4vImageProcessor(ImageProcessor):
    """Limits are volumes, which count the frames of a patch, and stand in ``size`` alone; also Glm46VImageProcessor."""

    limits = (112 * 112, 28 * 28 * 15000)

    @classmethod
    def limits_of(cls, config: Section, factor: int, temporal: int) -> tuple[int, int]:
        """Return the edges of ``size``, which are volumes; as transformers, without ``min_pixels``."""
        return read_limits(config, cls.limits, ())

    def _size(self, height: int, width: int) -> tuple[int, int]:
        factors = self.temporal_patch_size, self.factor
        return smart_resize.volume(factors[0], height, width, factors, self.min_pixels, self.max_pixels)


class Glm5NextImageProcessor(ImageProcessor):
    """An image is not enlarged to whole merge units: black is added at the right and at the bottom."""

    limits = (16, 8000)  # tokens

    @classmethod
    def limits_of(cls, config: Section, factor: int, temporal: int) -> tuple[int, int]:
        """Return volumes, from ``min_image_tokens`` and ``max_image_tokens``."""
        keys = ("min_image_tokens", "max_image_tokens")
        tokens = Section({key: value for key, value in config.written.items() if key in keys}, config.place)
        smallest, largest = read_limits(tokens, cls.limits, keys)
        return smallest * temporal * factor**2, largest * temporal * factor**2

    def _content(self, size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
        return smart_resize.content(size, canvas, self.temporal_patch_size, self.min_pixels)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        factors = self.temporal_patch_size, self.factor
        return smart_resize.canvas(factors[0], height, width, factors, self.min_pixels, self.max_pixels)


# Name of transformers' class -> class; `Fast` and `Pil` may follow a name: here, ``backend`` makes that choice.
TYPES: dict[str, type[ImageProcessor]] = {
    "Qwen2VLImageProcessor": ImageProcessor,
    "CohereCompassImageProcessor": ImageProcessor,
    "Glm4vImageProcessor": Glm4vImageProcessor,
    "Glm46VImageProcessor": Glm4vImageProcessor,
    "Glm5NextImageProcessor": Glm5NextImageProcessor,
    "PaddleOCRVLImageProcessor": PaddleOCRVLImageProcessor,
}


def processor_class(family: str, preprocessor: Mapping[str, Any]) -> type[ImageProcessor]:
    """Return the class that a preprocessor config names, else the family's own: as transformers' AutoImageProcessor.

    Raises ConfigError for a name that is neither one of `TYPES` nor made of a family's, for a config without a name
    where transformers has no class for the family, and for a missing config (an empty ``preprocessor``) where published
    checkpoints have another mean and std than the class.
    """
    config, stated = Section(preprocessor, PLACE), FAMILIES[family].processors
    if not config and not stated.class_normalisation:
        raise missing("mean and std")
    if config and "image_processor_type" not in config and not stated.auto:
        raise config.refused("image_processor_type", f"a name: transformers has no image processor for {family}")
    name = config.word("image_processor_type") if "image_processor_type" in config else stated.image
    kin = family_of_class(_stem(name), "ImageProcessor")
    found = TYPES.get(_stem(name)) or (kin and TYPES.get(_stem(kin.processors.image)))
    if not found:
        raise config.refused("image_processor_type", " or ".join(TYPES))
    return found


def missing(unknown: str, remedy: str = "") -> ConfigError:
    """Return the error for a checkpoint without a preprocessor config, which leaves something ``unknown``."""
    return ConfigError(
        "the checkpoint has no preprocessor_config.json (nor a processor_config.json with an image_processor), "
        f"so its {unknown} are unknown; copy the file from the model it was made from{remedy}"
    )


def _stem(name: str) -> str:
    """Return the name of a class without the word for its backend."""
    return name.removesuffix("Fast").removesuffix("Pil")


def refuse_other_steps(config: Section, tower: Mapping[str, int], noun: str = "images") -> None:
    """Raise ConfigError, by name, for fields that would give other pixels; ``tower`` holds sizes that have to agree.

    Null is no default here: transformers takes null for false, or lacks the number.
    """
    for key in (*STEPS, *tower):
        if key in config.nulls:
            raise config.refused(key, "a value, or no such field: null removes the default of transformers")
    for key in SWITCHES:
        if not config.flag(key, True):
            raise config.refused(key, f"true: {noun} are prepared so, or not at all")
    if config.get("resample") not in (None, "bicubic") and config.whole("resample", BICUBIC, 0) != BICUBIC:
        raise config.refused("resample", "3 (bicubic)")
    for key, value in tower.items():
        if config.whole(key, value) != value:
            raise config.refused(key, f"{value}, as the tower has it")
