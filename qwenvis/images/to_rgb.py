"""How orientation, transparency and depth are read: as a person sees them, or as a class of transformers does.

transformers treats one picture differently by what it is passed as. docs/pixels.md has the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qwenvis.errors import ImageError

STRIP = 1 << 18  # pixels of an array that are converted at a time: 6 MB of three float64


class Policy(Protocol):
    """What becomes of an image that is open, and of an array. ``of_file`` tells a file from a PIL image."""

    def turns(self, of_file: bool) -> bool:
        """Whether the EXIF orientation is applied."""

    def rgb(self, image: Image.Image, where: str, of_file: bool) -> Image.Image:
        """A loaded image in mode RGB."""

    def size(self, array: NDArray[Any], where: str) -> tuple[int, int]:
        """The (height, width) of an array, once its dtype and shape are right."""

    def picture(self, array: NDArray[Any], where: str) -> Image.Image:
        """An array as an image in mode RGB."""

    def unit(self, array: NDArray[Any]) -> bool:
        """Whether the bytes of `picture` stand for 0..1."""


class Natural:
    """Upright, on white, in 8 bits, whatever an image is passed as; arrays are uint8, channels last."""

    def turns(self, of_file: bool) -> bool:
        """Always."""
        return True

    def rgb(self, image: Image.Image, where: str, of_file: bool) -> Image.Image:
        """On white; 16-bit grey is scaled. Raises ImageError for float pixels and for grey that is not 16-bit."""
        if image.mode == "F":
            raise ImageError(f"{where} has float pixels (mode F); scale them to 0..255 and convert to mode L first")
        if image.mode.startswith("I"):
            return _grey(image, where).convert("RGB")
        if image.mode == "La":
            image = image.convert("LA")  # the one conversion that Pillow has of it
        return _on_white(image) if _transparent(image) or image.mode == "RGBa" else _converted(image)

    def size(self, array: NDArray[Any], where: str) -> tuple[int, int]:
        """Of (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8; raises ImageError, with the remedy, for others."""
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
        """The array is copied or only read; alpha on white."""
        self.size(array, where)
        image = Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)
        return self.rgb(image, where, of_file=False)

    def unit(self, array: NDArray[Any]) -> bool:
        """Never."""
        return False


class Transformers:
    """As transformers' PIL classes: ``load_image``, then ``convert_to_rgb`` and ``resize`` of image_transforms."""

    def turns(self, of_file: bool) -> bool:
        """A file only."""
        return of_file

    def rgb(self, image: Image.Image, where: str, of_file: bool) -> Image.Image:
        """A file loses its alpha; other transparency is put on white. Pillow clips 16 bits and floats at 255."""
        if of_file:
            # What is asked of Pillow without the detour warns of a palette whose entries have an alpha each.
            palette = image.mode == "P" and isinstance(image.info.get("transparency"), bytes)
            image = _converted(image.convert("RGBA") if palette else image)
        if image.mode == "La":
            raise ImageError(f"{where} has mode La, which transformers cannot convert; convert it to LA first")
        return _on_white(image) if _transparent(image) else _converted(image)

    def size(self, array: NDArray[Any], where: str) -> tuple[int, int]:
        """The axis of channels is the first, if it has 1, 3 or 4 entries; else the last."""
        height, width, _ = self._channels_last(array, where).shape
        return height, width

    def picture(self, array: NDArray[Any], where: str) -> Image.Image:
        """Raises ImageError for values that are neither whole numbers in 0..255 nor in 0..1."""
        scaled = self._scaled(array, where)
        picture = np.empty((*self.size(array, where), 3), np.uint8)
        for rows, rgb in self._strips(array, where):
            picture[rows] = (rgb.astype(np.float64) * 255).astype(np.float32) if scaled else rgb
        return Image.fromarray(picture)

    def unit(self, array: NDArray[Any]) -> bool:
        """``_rescale_for_pil_conversion``."""
        return self._scaled(array, "the image")

    def _scaled(self, array: NDArray[Any], where: str) -> bool:
        """Whether values are fractions of 1; whole numbers are not. Raises ImageError where they are neither."""
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
        """Some rows after others, (rows, W, 3) of the array's type, alpha on white."""
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
    """As transformers' torchvision classes, which keep floats through the resize: refused here."""

    def size(self, array: NDArray[Any], where: str) -> tuple[int, int]:
        """As the base, for uint8."""
        if array.dtype != np.uint8:
            raise ImageError(f"{where}: with backend 'torchvision', pixels must be uint8, got {array.dtype}")
        return super().size(array, where)

    def _blended(self, array: NDArray[Any]) -> NDArray[Any]:
        """``convert_to_rgb`` of TorchvisionBackend: in float32, and cut, not rounded."""
        values = array.astype(np.float32) * np.float32(1 / 255)
        alpha = values[..., 3:]
        blended: NDArray[Any] = (values[..., :3] * alpha + (1 - alpha)) * np.float32(256 - 1e-3)
        return blended.astype(np.uint8)


NATURAL = Natural()
_POLICIES: dict[tuple[str, str], Policy] = {
    ("natural", "pil"): NATURAL,
    ("natural", "torchvision"): NATURAL,
    ("transformers", "pil"): Transformers(),
    ("transformers", "torchvision"): TransformersTorchvision(),
}


def chosen(pixels: str, backend: str) -> Policy:
    """The policy of a processor's two words."""
    return _POLICIES[pixels, backend]


def _transparent(image: Image.Image) -> bool:
    return "A" in image.getbands() or image.info.get("transparency") is not None


def _on_white(image: Image.Image) -> Image.Image:
    """As ``convert_to_rgb`` of transformers.image_transforms."""
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _converted(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey(image: Image.Image, where: str) -> Image.Image:
    """16-bit grey scaled to mode L, its transparent value on white."""
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
    """Values of some pixels: whether they are whole numbers, as near as ``np.allclose`` has it, and their ends."""

    whole: bool
    least: Any
    most: Any

    @classmethod
    def of(cls, values: NDArray[Any]) -> _Range:
        with np.errstate(invalid="ignore"):
            return cls(np.allclose(values, values.astype(int)), values.min(), values.max())
