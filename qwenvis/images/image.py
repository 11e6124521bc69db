"""Images to patches: resize, normalise, cut.

Each image is decoded (`images.decode`), resized by Pillow's bicubic filter to the size that `processors.image`
computes, and cut into patches in merge-block order (`ops.vol2col`). For an opaque, upright 8-bit image,
``pixel_values`` are bit-equal to those of ``Qwen2VLImageProcessorPil`` in transformers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qwenvis.errors import ImageError
from qwenvis.images import to_rgb, torch_resize
from qwenvis.images.decode import ImageInput, as_array, decode, label, probe
from qwenvis.images.step import PixelStep, StepItem
from qwenvis.processors.image import ImageProcessor
from qwenvis.processors.smart_resize import FrameSize

BICUBIC = Image.Resampling.BICUBIC


class ImageItem(StepItem):
    """An image planned from its header alone, not yet decoded: an item of a `Plan`.

    ``grid`` is (1, rows, columns) of patches. ``size`` is the (height, width) before resizing, ``resized`` the size
    after. If a PNG file stores its EXIF block after the pixels, all three describe the image before rotation until it
    is decoded; the number of patches is the same.
    """

    def __init__(self, picture: ImageInput, processor: ImageProcessor, index: int) -> None:
        """Read the header; errors name the image by its index. Raises ImageError or ImageLimitError."""
        self.processor, self.where = processor, label(picture, index)
        self._picture = picture
        self._settled: PixelStep | None = None
        self.size = probe(picture, self.where, self._policy)
        self.resized = self._fitted()
        self.grid = processor.patch_grid(self.resized)

    def verify(self) -> None:
        """Decode the image and drop its pixels. Raises ImageError for a damaged image."""
        self._decoded()

    def settle(self) -> None:
        """Decode and resize now, because the source may change. Raises ImageError for a damaged image."""
        self._settled = self._step()
        self.grid = self._settled.grid
        del self._picture  # to free it

    def steps(self, first: int, stop: int) -> Iterator[PixelStep]:
        """Yield the only step: the image, decoded and resized. Raises ImageError for a damaged image."""
        planned, step = math.prod(self.grid), self._settled or self._step()
        if math.prod(step.grid) != planned:
            raise ImageError(f"{self.where} changed while it was read")
        self.grid = step.grid
        yield step

    @property
    def _policy(self) -> to_rgb.RgbPolicy:
        return to_rgb.rgb_policy(self.processor.pixels, self.processor.backend)

    def _step(self) -> PixelStep:
        image, array = self._decoded(), as_array(self._picture, self.where)
        return resized_step(image, self.resized, self.processor, unit=array is not None and self._policy.unit(array))

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


def resized_step(image: Image.Image, size: FrameSize, processor: ImageProcessor, *, unit: bool = False) -> PixelStep:
    """Resize an RGB image to ``size``; ``unit``: bytes 0..255 stand for values 0..1."""
    (height, width), pixels = size.canvas, _resized(image, size.content, processor.backend)
    if pixels.shape[:2] != (height, width):
        pixels = np.pad(pixels, ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)))
    lut = processor.normalisation.unit_lut if unit else processor.lut
    merge_size = 1 if processor.raster else processor.merge_size
    return PixelStep(pixels[None], lut, (processor.patch_size, processor.temporal_patch_size, merge_size))


def _resized(image: Image.Image, sides: tuple[int, int], backend: str) -> NDArray[np.uint8]:
    """Resize an image with the bicubic filter of Pillow or PyTorch; returns (height, width, 3) uint8."""
    height, width = sides
    if image.size != (width, height) and backend == "torchvision":
        return torch_resize.resize(np.asarray(image), height, width)
    return np.asarray(image if image.size == (width, height) else image.resize((width, height), BICUBIC))
