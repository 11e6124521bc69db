"""Decode any image input to RGB: read its size from the header, then its pixels.

An image is a path, the bytes of an encoded file, a binary file object (read from its start), a PIL image, or an array
or tensor of pixels. Under the default policy, ``natural``, the encoder sees what a person sees:

- orientation: the EXIF orientation is applied, to PIL images too;
- transparency: transparent pixels of every mode, and of (H, W, 4) arrays, are composited on white;
- depth: 16-bit grey (modes I;16 and I) is scaled from 0..65535 to 0..255; float pixels (mode F) are refused;
- animation: the first frame is read; a PIL image is read at its current frame.

`images.to_rgb` holds this conversion, and the conversions of transformers.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from qwenvis.errors import ImageError, ImageLimitError, QwenvisError
from qwenvis.images.to_rgb import NATURAL, RgbPolicy
from qwenvis.io import arrays, sharing
from qwenvis.io import files as io_files
from qwenvis.io.signatures import HEAD, video_container

ImageInput: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | Image.Image
    | NDArray[Any]
    | arrays.SupportsArray
)
EXPECTED = "a path, bytes, a binary file object, a PIL image, or a uint8 array or tensor"

# Pillow's default for Image.MAX_IMAGE_PIXELS, above which it warns of a decompression bomb: 358 MB when decoded.
MAX_IMAGE_PIXELS = 89_478_485

# Pillow passes EPS files to an external program, Ghostscript; of an MPEG file it reads the size but no frame.
REFUSED_FORMATS = ("EPS", "MPEG")

# EXIF orientation -> the transpose that makes the image upright, as in PIL.ImageOps.exif_transpose
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ON_ITS_SIDE = (5, 6, 7, 8)


def as_iterable(images: ImageInput | Iterable[ImageInput]) -> Iterable[ImageInput]:
    """Return the images unchanged, or a list of one for a single image."""
    if is_single(images) or not isinstance(images, Iterable):
        return [cast(ImageInput, images)]
    return cast(Iterable[ImageInput], images)


def is_single(source: object) -> bool:
    """Return whether a value is one image (a file, a PIL image or an array) rather than a collection of images."""
    return isinstance(source, Image.Image) or io_files.is_file(source) or arrays.is_array(source)


def probe(source: ImageInput, where: str = "the image", policy: RgbPolicy = NATURAL) -> tuple[int, int]:
    """Return the (height, width) of the decoded image, from its header alone.

    ``where`` names the image in errors. Raises ImageError for a source that is not an image, and ImageLimitError for
    an image of more than ``MAX_IMAGE_PIXELS`` pixels.
    """
    if (array := as_array(source, where)) is not None:
        return _within(policy.size(array, where), where)
    with opened(source, where) as image, sharing.locked(image):
        height, width, of_file = image.height, image.width, image is not source
        # The header's size of a TIFF is that of the upright image: Pillow rotates a TIFF while loading.
        turned = policy.turns(of_file) and image.format != "TIFF"
        on_its_side = turned and _orientation(image, header_only=of_file) in ON_ITS_SIDE
    return (width, height) if on_its_side else (height, width)


def decode(source: ImageInput, where: str = "the image", policy: RgbPolicy = NATURAL) -> Image.Image:
    """Decode an image to mode RGB under a policy; a PIL image that needs no change is returned without a copy.

    Raises like `probe`, and ImageError for an image that is truncated, damaged, or in a mode without colours.
    """
    if (array := as_array(source, where)) is not None:
        _within(policy.size(array, where), where)
        return policy.picture(array, where)
    with opened(source, where) as image:
        of_file = image is not source
        with sharing.locked(image):
            image.load()
            turn = UPRIGHT.get(_orientation(image)) if policy.turns(of_file) else None
        image = policy.rgb(image, where, of_file)
    return image if turn is None else image.transpose(turn)


def frame(source: ImageInput, where: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode an image to (height, width, 3) uint8, C-contiguous.

    Raises like `decode`, and ImageError for an image whose (height, width) is no longer ``size``.
    """
    pixels = np.asarray(decode(source, where))
    if pixels.shape[:2] != size:
        raise ImageError(f"{where} changed while it was read")
    return np.ascontiguousarray(pixels)


def as_array(source: Any, where: str) -> NDArray[Any] | None:
    """Return an array or tensor as a NumPy array, or None for any other source. Raises ImageError."""
    if isinstance(source, Image.Image) or not arrays.is_array(source):
        return None
    return arrays.plain(source, where, ImageError)


def label(source: object, index: int) -> str:
    """Return the name of an image in errors: its index, and its path or kind."""
    if isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        kind = repr(path if len(path) <= 100 else f"{path[:60]}...{path[-37:]}")
    elif isinstance(source, bytes | bytearray | memoryview):
        kind = f"{memoryview(source).nbytes} bytes"
    elif isinstance(source, np.ndarray):
        kind = f"array of shape {source.shape}, {source.dtype}"
    elif isinstance(source, Image.Image):
        kind = f"PIL image, mode {source.mode}"
    elif hasattr(source, "read"):
        kind = f"file object {getattr(source, 'name', type(source).__name__)!r}"
    else:
        kind = type(source).__name__
    return f"image {index} ({kind})"


@contextmanager
def opened(source: ImageInput, where: str) -> Iterator[Image.Image]:
    """Open the image of a source other than an array: read the header and check the size, without decoding pixels.

    Every exception inside becomes an ImageError or an ImageLimitError, because Pillow's decoders raise nearly any
    type on damaged files. The package's own errors and MemoryError pass through.
    """
    try:
        if isinstance(source, Image.Image):
            _within((source.height, source.width), where)
            yield source
        else:
            if not io_files.is_file(source):
                raise ImageError(f"{where} is not an image; expected {EXPECTED}")
            with io_files.opened(source, where, ImageError) as file:
                image = _identify(file, where)
                _within((image.height, image.width), where)
                yield image
    except (QwenvisError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageLimitError(f"{where}: {error}") from error
    except Exception as error:
        raise ImageError(f"{where} is truncated or damaged: {error or type(error).__name__}") from error


def _identify(file: IO[bytes], where: str) -> Image.Image:
    """Open an image like ``PIL.Image.open``, without its warning about large images, which `_within` refuses.

    Silencing the warning would change Python's warning filters for all threads. Pillow gets no file name, so it reads
    the file and never maps it: reading a mapped file that has been truncated kills the process.
    """
    prefix = file.read(16)
    if not prefix:
        raise ImageError(f"{where} is empty (0 bytes)")
    for load_plugins in (Image.preinit, Image.init):
        load_plugins()
        for name, (factory, accepts) in list(Image.OPEN.items()):
            try:
                accepted = name not in REFUSED_FORMATS and (accepts is None or accepts(prefix))
                if accepted and not isinstance(accepted, str):  # a str is the reason why Pillow cannot read the format
                    file.seek(0)
                    return factory(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue  # a format with the same first bytes, but not this one
    file.seek(0)
    if container := video_container(file.read(HEAD)):
        raise ImageError(f"{where} is a video ({container}), not an image: pass it as videos=")
    hint = ": HEIC is read once pillow-heif is installed and registered" if prefix[4:11] == b"ftyphei" else ""
    raise ImageError(f"{where} is not an image that Pillow can read; it begins with {prefix!r}{hint}")


def _within(size: tuple[int, int], where: str) -> tuple[int, int]:
    """Return the (height, width) unchanged; raise ImageError or ImageLimitError if it is out of bounds."""
    height, width = size
    if min(height, width) < 1:
        raise ImageError(f"{where} has no pixels: it is {height} x {width} (height x width)")
    if height * width > MAX_IMAGE_PIXELS:
        raise ImageLimitError(
            f"{where} is {height} x {width}, {height * width:,} pixels; at most {MAX_IMAGE_PIXELS:,} are decoded: "
            "shrink it first"
        )
    return size


def _orientation(image: Image.Image, header_only: bool = False) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if it is missing or unreadable."""
    try:
        # PngImageFile.getexif decodes the whole image if the header holds no EXIF.
        exif = Image.Image.getexif(image) if header_only else image.getexif()
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:
        return 1
