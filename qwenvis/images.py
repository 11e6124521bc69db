"""Images to patches: resize, normalise, cut.

Each image is decoded (pictures), resized as its checkpoint asks (processors) by Pillow's bicubic on bytes, and brought
into merge-block order (ops.vol2col). For an opaque, upright 8-bit image, ``pixel_values`` are bit-equal to
``Qwen2VLImageProcessorPil`` of transformers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qwenvis import ops, policies, resampling
from qwenvis.errors import ImageError
from qwenvis.pictures import Picture, decode, label, probe
from qwenvis.processors import ImageProcessor

BICUBIC = Image.Resampling.BICUBIC


class Still:
    """An image that is planned from its header, and not decoded: an item of ``plan``.

    ``grid`` is (1, rows, columns). The EXIF block of a PNG file may stand behind its pixels; the grid of such an image
    is here the one before it is turned upright, which has as many patches. ``size`` is its (height, width), as far as
    is known, before it is resized.
    """

    def __init__(self, source: Picture, processor: ImageProcessor, index: int) -> None:
        """Errors call the image by its index. Raises ImageError, or LimitError."""
        self.source, self.processor, self.where = source, processor, label(source, index)
        self.policy = policies.chosen(processor.pixels, processor.backend)
        self.size = probe(source, self.where, self.policy)
        self.grid = _planned(self.size, processor, self.where)

    def fill(self, first: int, stop: int, out: NDArray[np.float32]) -> tuple[int, int, int]:
        """Decode, resize and cut; returns the grid. Raises ImageError for an image that turns out to be damaged."""
        image = decode(self.source, self.where, self.policy)
        self.size = image.height, image.width
        grid = _planned(self.size, self.processor, self.where)
        if math.prod(grid) != len(out):
            raise ImageError(f"{self.where} changed while it was read")
        array = self.source if isinstance(self.source, np.ndarray) else None
        unit = array is not None and self.policy.unit(array)
        patches(image, self.processor, out, unit=unit)
        return grid


def patches(
    image: Image.Image, processor: ImageProcessor, out: NDArray[np.float32] | None = None, *, unit: bool = False
) -> tuple[NDArray[np.float32], tuple[int, int, int]]:
    """Return the patches of an RGB image, in the order of the tower, and its grid (1, rows, columns).

    They are (rows·columns, 3·T·p²) float32, written into ``out`` if it is given. ``unit``: bytes stand for 0..1.
    Raises as ``ImageProcessor.resized``.
    """
    height, width = processor.resized(image.height, image.width)
    grid = processor.grid(image.height, image.width)
    frame = _resized(image, processor.content(image.height, image.width), processor.backend)
    if frame.shape[:2] != (height, width):
        frame = np.pad(frame, ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)))
    if out is None:
        out = np.empty((math.prod(grid), processor.columns), np.float32)
    lut = processor.normalisation.unit_lut if unit else processor.lut
    merge_size = 1 if processor.raster else processor.merge_size
    return ops.vol2col(frame[None], lut, processor.patch_size, processor.temporal_patch_size, merge_size, out), grid


def _resized(image: Image.Image, sides: tuple[int, int], backend: str) -> NDArray[np.uint8]:
    """An image resized to (height, width), by Pillow's bicubic or torch's; (height, width, 3)."""
    height, width = sides
    if image.size != (width, height) and backend == "torchvision":
        return resampling.resize(np.asarray(image), height, width)
    return np.asarray(image if image.size == (width, height) else image.resize((width, height), BICUBIC))


def _planned(size: tuple[int, int], processor: ImageProcessor, where: str) -> tuple[int, int, int]:
    """The grid of an image of a (height, width); errors name the image."""
    try:
        return processor.grid(*size)
    except ImageError as error:
        raise type(error)(f"{where}: {error}") from None
