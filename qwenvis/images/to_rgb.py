"""Conversions of images to RGB, which differ in orientation, transparency and depth.

The natural policy reads an image as a person sees it; the others follow classes of transformers, which treat one image
differently depending on whether a file, a PIL image or an array is passed. docs/pixels.md has the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qwenvis.errors import ImageError

STRIP = 1 << 18  # pixels of an array converted at a time: 6 MB in float64


class RgbPolicy(Protocol):
    """Conversion of opened images and of arrays; ``of_file`` distinguishes a file from a PIL image."""

    def turns(self, of_file: bool) -> bool:
        """Return whether the EXIF orientation is applied."""

    def rgb(self, image: Image.Image, where: str, of_file: bool) -> Image.Image:
        """Convert a loaded image to mode RGB."""

    def size(self, array: NDArray[Any], where: str) -> tuple[int, int]:
        """Return the (height, width) of an array after checking its dtype and shape."""

    def picture(self, array: NDArray[Any], where: str) -> Image.Image:
        """Convert an array to an image in mode RGB."""

    def unit(self, array: NDArray[Any]) -> bool:
        """Return whether the bytes that `picture` makes of the array stand for values from 0 to 1."""


class Natural:
    """Read every image upright, on white, in 8 bits; arrays must be uint8 with channels last."""

    def turns(self, of_file: bool) -> bool:
        """Return True."""
        return True

    def rgb(self, image: Image.Image, where: str, of_file: bool) -> Image.Image:
        """Composite on white, and scale 16-bit grey. Raises ImageError for float pixels and grey beyond 16 bits."""
        if image.mode == "F":
            raise ImageError(f"{where} has float pixels (mode F); scale them to 0..255 and convert to mode L first")
        if image.mode.startswith("I"):
            return _grey(image, where).convert("RGB")
        if image.mode == "La":
            image = image.convert("LA")  # the only conversion that Pillow offers
        return _on_white(image) if _transparent(image) or image.mode == "RGBa" else _converted(image)

    def size(self, array: NDArray[Any], where: str) -> tuple[int, int]:
        """Accept (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8; raise ImageError, with the remedy, for others."""
        if array.dtype != np.uint8:
            remedy = {
                "f": "if its values are 0 to 1, pass (array * 255).round().astype(np.uint8)",
                "b": "pass array * np.uint8(255)",
                "u": "if its values are 0 to 65535, pass (array // 257).astype(np.uint8)",
            }.get(array.dtype.kind, "pass array.astype(np.uint8) once its values are 0 to 255")
            raise ImageError(f"{where}: pixels must be uint8, got {array.dtype}; {remedy}")
        if array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,), (4,)):
            remedy = "; for several images pass list(array)" if array.ndim == 4 else ""
            if array.ndim == 3 and array.shape[0] in (1, 3, 4):
                remedy = "; channels come last: pass np.moveaxis(array, 0, -1), of a tensor tensor.permute(1, 2, 0)"
            raise ImageError(f"{where}: expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}{remedy}")
        return array.shape[0], array.shape[1]

    def picture(self, array: NDArray[Any], where: str) -> Image.Image:
        """Composite alpha on white; the array is never written to."""
        self.size(array, where)
        image = Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)
        return self.rgb(image, where, of_file=False)

    def unit(self, array: NDArray[Any]) -> bool:
        """Return False."""
        return False


class Transformers:
    """Follow transformers' PIL classes: ``load_image``, then ``convert_to_rgb`` and ``resize`` of image_transforms."""

    def turns(self, of_file: bool) -> bool:
        """Return True for a file, False for a PIL image."""
        return of_file

    def rgb(self, image: Image.Image, where: str, of_file: bool) -> Image.Image:
        """Drop the alpha of a file; composite other transparency on white. Pillow clips 16 bits and floats at 255."""
        if of_file:
            # Without the detour over RGBA, Pillow warns about a palette with one alpha per entry.
            palette = image.mode == "P" and isinstance(image.info.get("transparency"), bytes)
            image = _converted(image.convert("RGBA") if palette else image)
        if image.mode == "La":
            raise ImageError(f"{where} has mode La, which transformers cannot convert; convert it to LA first")
        return _on_white(image) if _transparent(image) else _converted(image)

    def size(self, array: NDArray[Any], where: str) -> tuple[int, int]:
        """Take the first axis as channels if it has 1, 3 or 4 entries, else the last."""
        height, width, _ = self._channels_last(array, where).shape
        return height, width

    def picture(self, array: NDArray[Any], where: str) -> Image.Image:
        """Raise ImageError for values that are neither whole numbers from 0 to 255 nor numbers from 0 to 1."""
        scaled = self._scaled(array, where)
        picture = np.empty((*self.size(array, where), 3), np.uint8)
        for rows, rgb in self._strips(array, where):
            picture[rows] = (rgb.astype(np.float64) * 255).astype(np.float32) if scaled else rgb
        return Image.fromarray(picture)

    def unit(self, array: NDArray[Any]) -> bool:
        """Return what ``_rescale_for_pil_conversion`` of transformers decides."""
        return self._scaled(array, "the image")

    def _scaled(self, array: NDArray[Any], where: str) -> bool:
        """Return whether values are fractions of 1 rather than whole numbers. Raises ImageError for other values."""
        if array.dtype == np.uint8:
            return False
        ranges = [_Range.of(rgb) for _, rgb in self._strips(array, where)]
        whole = all(found.whole for found in ranges)
        if not all(found.least >= 0 and found.most <= (255 if whole else 1) for found in ranges):
            least, most = min(found.least for found in ranges), max(found.most for found in ranges)
            expected = "whole numbers from 0 to 255, or 0 to 1"
            raise ImageError(f"{where} has values from {least} to {most}; expected {expected}")
        return not whole

    def _strips(self, array: NDArray[Any], where: str) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield strips of rows, (rows, W, 3) in the array's dtype, with alpha composited on white."""
        array = self._channels_last(array, where)
        if array.shape[-1] == 4:
            self._check_alpha(array, where)
        height = max(1, STRIP // max(1, array.shape[1]))
        for top in range(0, len(array), height):
            rows = slice(top, top + height)
            yield rows, self._rgb_array(array[rows])

    def _channels_last(self, array: NDArray[Any], where: str) -> NDArray[Any]:
        if array.ndim == 3 and array.dtype.kind in "buif":
            axis = next((axis for axis in (0, 2) if array.shape[axis] in (1, 3, 4)), None)
            if axis is not None:
                return np.moveaxis(array, axis, -1)
        raise ImageError(
            f"{where}: expected numbers with 1, 3 or 4 channels, first or last, got {array.dtype} {array.shape}"
        )

    def _rgb_array(self, array: NDArray[Any]) -> NDArray[Any]:
        if array.shape[-1] == 4:
            return self._blended(array)
        return np.broadcast_to(array, (*array.shape[:2], 3))

    def _check_alpha(self, array: NDArray[Any], where: str) -> None:
        if not np.issubdtype(array.dtype, np.integer) and not (array.min() >= 0 and array.max() <= 1):
            raise ImageError(f"{where} has alpha and values from {array.min()} to {array.max()}; expected 0 to 1")

    def _blended(self, array: NDArray[Any]) -> NDArray[Any]:
        whole = np.issubdtype(array.dtype, np.integer)
        white = 255 if whole else 1.0
        alpha = array[..., 3:] / white
        blended: NDArray[Any] = alpha * array[..., :3] + (1 - alpha) * white
        return (np.round(blended) if whole else blended).astype(array.dtype)


class TransformersTorchvision(Transformers):
    """Follow transformers' torchvision classes. These resize float arrays as floats; here such arrays are refused."""

    def size(self, array: NDArray[Any], where: str) -> tuple[int, int]:
        """Return the size as the base class does; only uint8 is accepted."""
        if array.dtype != np.uint8:
            raise ImageError(f"{where}: with backend 'torchvision', pixels must be uint8, got {array.dtype}")
        return super().size(array, where)

    def _blended(self, array: NDArray[Any]) -> NDArray[Any]:
        """Composite like ``convert_to_rgb`` of TorchvisionBackend: in float32, truncated rather than rounded."""
        values = array.astype(np.float32) * np.float32(1 / 255)
        alpha = values[..., 3:]
        blended: NDArray[Any] = (values[..., :3] * alpha + (1 - alpha)) * np.float32(256 - 1e-3)
        return blended.astype(np.uint8)


NATURAL = Natural()
_POLICIES: dict[tuple[str, str], RgbPolicy] = {
    ("natural", "pil"): NATURAL,
    ("natural", "torchvision"): NATURAL,
    ("transformers", "pil"): Transformers(),
    ("transformers", "torchvision"): TransformersTorchvision(),
}


def rgb_policy(pixels: str, backend: str) -> RgbPolicy:
    """Return the policy for a processor's ``pixels`` and ``backend``."""
    return _POLICIES[pixels, backend]


def _transparent(image: Image.Image) -> bool:
    return "A" in image.getbands() or image.info.get("transparency") is not None


def _on_white(image: Image.Image) -> Image.Image:
    """Composite on white like ``convert_to_rgb`` of transformers.image_transforms."""
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _converted(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey(image: Image.Image, where: str) -> Image.Image:
    """Scale 16-bit grey to mode L; the transparent value becomes white."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(
            f"{where} has values from {values.min()} to {values.max()} (mode {image.mode}); expected 0 to 65535"
        )
    grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # round(255 v / 65535)
    grey[values == image.info.get("transparency", -1)] = 255
    return Image.fromarray(grey)


@dataclass(frozen=True)
class _Range:
    """The range of some pixels, and whether all are whole numbers within the tolerance of ``np.allclose``."""

    whole: bool
    least: Any
    most: Any

    @classmethod
    def of(cls, values: NDArray[Any]) -> _Range:
        with np.errstate(invalid="ignore"):
            return cls(np.allclose(values, values.astype(int)), values.min(), values.max())
