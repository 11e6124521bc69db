"""Images to patches: resize, normalise, cut.

Each image is decoded (`images.decode`), resized by Pillow's bicubic filter to the size that `processors.image`
computes, and cut into patches in merge-block order (`ops.vol2col`). For an opaque, upright 8-bit image,
``pixel_values`` are bit-equal to those of ``Qwen2VLImageProcessorPil`` in transformers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qwenvis import ops
from qwenvis.errors import ImageError
from qwenvis.images import to_rgb, torch_resize
from qwenvis.images.decode import ImageInput, as_array, decode, label, probe
from qwenvis.processors.image import ImageProcessor
from qwenvis.processors.smart_resize import FrameSize

BICUBIC = Image.Resampling.BICUBIC


class ImageItem:
    """An image planned from its header alone, not yet decoded: an item of a `Plan`.

    ``grid`` is (1, rows, columns) of patches. ``size`` is the (height, width) before resizing, ``resized`` the size
    after. If a PNG file stores its EXIF block after the pixels, all three describe the image before rotation until it
    is decoded; the number of patches is the same.
    """

    def __init__(self, picture: ImageInput, processor: ImageProcessor, index: int) -> None:
        """Read the header; errors name the image by its index. Raises ImageError or ImageLimitError."""
        self.processor, self.where = processor, label(picture, index)
        self._picture = picture
        self._settled: Frame | None = None
        self.size = probe(picture, self.where, self._policy)
        self.resized = self._fitted()
        self.grid = processor.patch_grid(self.resized)

    def verify(self) -> None:
        """Decode the image and drop its pixels. Raises ImageError for a damaged image."""
        self._decoded()

    def settle(self) -> None:
        """Decode and resize now, because the source may change. Raises ImageError for a damaged image."""
        self._settled = self._frame()
        self.grid = self._settled.grid
        del self._picture  # to free it

    def fill(self, first: int, stop: int, out: NDArray[np.float32]) -> tuple[int, int, int]:
        """Decode, resize and cut into ``out``; return the grid. Raises ImageError for a damaged image."""
        frame = self._settled or self._frame()
        if math.prod(frame.grid) != len(out):
            raise ImageError(f"{self.where} changed while it was read")
        frame.cut(out)
        return frame.grid

    @property
    def _policy(self) -> to_rgb.RgbPolicy:
        return to_rgb.rgb_policy(self.processor.pixels, self.processor.backend)

    def _frame(self) -> Frame:
        image, array = self._decoded(), as_array(self._picture, self.where)
        return Frame.of(image, self.resized, self.processor, unit=array is not None and self._policy.unit(array))

    def _decoded(self) -> Image.Image:
        """Decode the image; its header may have stated another size."""
        image = decode(self._picture, self.where, self._policy)
        if (image.height, image.width) != self.size:
            self.size = image.height, image.width
            self.resized = self._fitted()
        return image

    def _fitted(self) -> FrameSize:
        """Return the size to which ``size`` is resized; errors name the image."""
        try:
            return self.processor.resized(*self.size)
        except ImageError as error:
            raise type(error)(f"{self.where}: {error}") from None


@dataclass(frozen=True, eq=False)
class Frame:
    """A resized image: (height, width, 3) bytes, and the table that maps a byte to its normalised value."""

    pixels: NDArray[np.uint8]
    grid: tuple[int, int, int]  # (1, rows, columns)
    lut: NDArray[np.float32]
    processor: ImageProcessor

    @classmethod
    def of(cls, image: Image.Image, size: FrameSize, processor: ImageProcessor, *, unit: bool = False) -> Frame:
        """Resize an RGB image to ``size``; ``unit``: bytes 0..255 stand for values 0..1."""
        (height, width), pixels = size.canvas, _resized(image, size.content, processor.backend)
        if pixels.shape[:2] != (height, width):
            pixels = np.pad(pixels, ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)))
        lut = processor.normalisation.unit_lut if unit else processor.lut
        return cls(pixels, processor.patch_grid(size), lut, processor)

    def cut(self, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return the patches in merge-block order, (rows·columns, 3·T·p²) float32, written into ``out`` if given."""
        processor = self.processor
        if out is None:
            out = np.empty((math.prod(self.grid), processor.columns), np.float32)
        merge_size = 1 if processor.raster else processor.merge_size
        sizes = processor.patch_size, processor.temporal_patch_size, merge_size
        return ops.vol2col(self.pixels[None], self.lut, *sizes, out)


def _resized(image: Image.Image, sides: tuple[int, int], backend: str) -> NDArray[np.uint8]:
    """Resize an image with the bicubic filter of Pillow or PyTorch; returns (height, width, 3) uint8."""
    height, width = sides
    if image.size != (width, height) and backend == "torchvision":
        return torch_resize.resize(np.asarray(image), height, width)
    return np.asarray(image if image.size == (width, height) else image.resize((width, height), BICUBIC))
