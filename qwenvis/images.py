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

from qwenvis import ops
from qwenvis.errors import ImageError, LimitError
from qwenvis.pictures import Picture, decode, label, probe
from qwenvis.processors import ImageProcessor


class Still:
    """An image that is planned from its header, and not decoded: an item of ``plan``.

    ``grid`` is (1, rows, columns). The EXIF block of a PNG file may stand behind its pixels; the grid of such an image
    is here the one before it is turned upright, which has as many patches.
    """

    def __init__(self, source: Picture, processor: ImageProcessor, index: int) -> None:
        """Errors call the image by its index. Raises ImageError, or LimitError."""
        self.source, self.processor, self.where = source, processor, label(source, index)
        self.grid = _planned(probe(source, self.where), processor, self.where)

    def fill(self, first: int, stop: int, out: NDArray[np.float32]) -> tuple[int, int, int]:
        """Decode, resize and cut; returns the grid. Raises ImageError for an image that turns out to be damaged."""
        image = decode(self.source, self.where)
        grid = _planned((image.height, image.width), self.processor, self.where)
        if math.prod(grid) != len(out):
            raise ImageError(f"{self.where} changed while it was read")
        patches(image, self.processor, out)
        return grid


def patches(
    image: Image.Image, processor: ImageProcessor, out: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.float32], tuple[int, int, int]]:
    """Return the patches of an RGB image, in merge-block order, and its grid (1, rows, columns).

    They are (rows·columns, 3·T·p²) float32, written into ``out`` if it is given.
    Raises as ``ImageProcessor.resized``.
    """
    canvas, grid = processor.resized(image.height, image.width), processor.grid(image.height, image.width)
    image = _on_canvas(_resized(image, processor.content(image.height, image.width)), canvas)
    if out is None:
        out = np.empty((math.prod(grid), processor.columns), np.float32)
    merge_size = 1 if processor.raster else processor.merge_size
    frames = np.asarray(image)[None]  # (1, height, width, 3)
    return ops.vol2col(
        frames, processor.lut, processor.patch_size, processor.temporal_patch_size, merge_size, out
    ), grid


def _resized(image: Image.Image, sides: tuple[int, int]) -> Image.Image:
    """An image resized to (height, width)."""
    height, width = sides
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)


def _on_canvas(image: Image.Image, sides: tuple[int, int]) -> Image.Image:
    """An image at the top left of a black one of (height, width)."""
    height, width = sides
    if image.size == (width, height):
        return image
    canvas = Image.new("RGB", (width, height))
    canvas.paste(image)
    return canvas


def _planned(size: tuple[int, int], processor: ImageProcessor, where: str) -> tuple[int, int, int]:
    """The grid of an image of a (height, width); errors name the image."""
    try:
        return processor.grid(*size)
    except (ImageError, LimitError) as error:
        raise type(error)(f"{where}: {error}") from None
