"""Images to patches: resize, normalise, cut.

Each image is decoded (`images.decode`), resized as its checkpoint asks (`processors.image`) by Pillow's bicubic on
bytes, and brought into merge-block order (`ops.vol2col`). For an opaque, upright 8-bit image, ``pixel_values`` are
bit-equal to ``Qwen2VLImageProcessorPil`` of transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qwenvis import ops
from qwenvis.errors import ImageError
from qwenvis.images import to_rgb, torch_resize
from qwenvis.images.decode import Picture, as_array, decode, label, probe
from qwenvis.processors.image import ImageProcessor

BICUBIC = Image.Resampling.BICUBIC


class ImageItem:
    """An image that is planned from its header, and not decoded: an item of a `Plan`.

    ``grid`` is (1, rows, columns). The EXIF block of a PNG file may stand behind its pixels; the grid of such an image
    is here the one before it is turned upright, which has as many patches. ``size`` is its (height, width), as far as
    is known, before it is resized.
    """

    def __init__(self, picture: Picture, processor: ImageProcessor, index: int) -> None:
        """Errors call the image by its index. Raises ImageError, or LimitError."""
        self.processor, self.where = processor, label(picture, index)
        self._frame: Callable[[], Frame] = partial(self._decoded, picture)
        self.size = probe(picture, self.where, self._policy)
        self.grid = _planned(self.size, processor, self.where)

    def settle(self) -> None:
        """Decode and resize it now: what was passed may change. Raises ImageError for an image that is damaged."""
        frame = self._frame()
        self.grid = frame.grid
        self._frame = lambda: frame

    def fill(self, first: int, stop: int, out: NDArray[np.float32]) -> tuple[int, int, int]:
        """Decode, resize and cut; returns the grid. Raises ImageError for an image that turns out to be damaged."""
        frame = self._frame()
        if math.prod(frame.grid) != len(out):
            raise ImageError(f"{self.where} changed while it was read")
        frame.cut(out)
        return frame.grid

    @property
    def _policy(self) -> to_rgb.Policy:
        return to_rgb.chosen(self.processor.pixels, self.processor.backend)

    def _decoded(self, picture: Picture) -> Frame:
        image = decode(picture, self.where, self._policy)
        self.size = image.height, image.width
        _planned(self.size, self.processor, self.where)
        array = as_array(picture, self.where)
        return Frame.of(image, self.processor, unit=array is not None and self._policy.unit(array))


@dataclass(frozen=True, eq=False)
class Frame:
    """An image that has the size which its checkpoint asks for: (height, width, 3) bytes, and the value of each."""

    pixels: NDArray[np.uint8]
    grid: tuple[int, int, int]  # (1, rows, columns)
    lut: NDArray[np.float32]
    processor: ImageProcessor

    @classmethod
    def of(cls, image: Image.Image, processor: ImageProcessor, *, unit: bool = False) -> Frame:
        """An RGB image, resized; ``unit``: its bytes stand for 0..1. Raises as ``ImageProcessor.resized``."""
        height, width = processor.resized(image.height, image.width)
        pixels = _resized(image, processor.content(image.height, image.width), processor.backend)
        if pixels.shape[:2] != (height, width):
            pixels = np.pad(pixels, ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)))
        lut = processor.normalisation.unit_lut if unit else processor.lut
        return cls(pixels, processor.grid(image.height, image.width), lut, processor)

    def cut(self, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Its patches in the order of the tower, (rows·columns, 3·T·p²) float32, written into ``out`` if given."""
        processor = self.processor
        if out is None:
            out = np.empty((math.prod(self.grid), processor.columns), np.float32)
        merge_size = 1 if processor.raster else processor.merge_size
        sizes = processor.patch_size, processor.temporal_patch_size, merge_size
        return ops.vol2col(self.pixels[None], self.lut, *sizes, out)


def _resized(image: Image.Image, sides: tuple[int, int], backend: str) -> NDArray[np.uint8]:
    """An image resized to (height, width), by Pillow's bicubic or torch's; (height, width, 3)."""
    height, width = sides
    if image.size != (width, height) and backend == "torchvision":
        return torch_resize.resize(np.asarray(image), height, width)
    return np.asarray(image if image.size == (width, height) else image.resize((width, height), BICUBIC))


def _planned(size: tuple[int, int], processor: ImageProcessor, where: str) -> tuple[int, int, int]:
    """The grid of an image of a (height, width); errors name the image."""
    try:
        return processor.grid(*size)
    except ImageError as error:
        raise type(error)(f"{where}: {error}") from None
