"""Whatever people pass as a picture: its size, and its pixels, upright in RGB.

A picture is a path, the bytes of an encoded file, a binary file object (read from its start), a PIL image, or an array
or tensor of pixels. Whatever it comes as, the encoder sees what a person sees:

- upright: the EXIF orientation is applied, to PIL images too;
- on white: transparent pixels of every mode, and of (H, W, 4) arrays, are composited on white;
- at 8 bits: 16-bit grey (modes I;16 and I) is scaled from 65535 to 255; float pixels (mode F) are refused;
- the first frame of an animation; of a PIL image, the frame at which it stands.

That is the natural policy; `images.to_rgb` has transformers' beside it.
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
from qwenvis.images.to_rgb import NATURAL, Policy
from qwenvis.io import arrays, sharing
from qwenvis.io import files as io_files
from qwenvis.io.signatures import HEAD, video_container

Picture: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | NDArray[Any] | arrays.Tensor
)
EXPECTED = "a path, bytes, a binary file object, a PIL image, or a uint8 array or tensor"

# Pillow's own default (Image.MAX_IMAGE_PIXELS), where it begins to warn of a decompression bomb: 358 MB decoded.
MAX_IMAGE_PIXELS = 89_478_485

# Pillow hands EPS to another program, Ghostscript; of MPEG it knows the size and cannot decode a frame.
REFUSED_FORMATS = ("EPS", "MPEG")

# EXIF orientation -> what makes the image upright, as PIL.ImageOps.exif_transpose
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


def stream(images: Picture | Iterable[Picture]) -> Iterable[Picture]:
    """Return the images as they come; a single image becomes a list of one."""
    if is_single(images) or not isinstance(images, Iterable):
        return [cast(Picture, images)]
    return cast(Iterable[Picture], images)


def is_single(source: object) -> bool:
    """Whether this is a picture, or would be one: a file, an image or an array, and no collection."""
    return isinstance(source, Image.Image) or io_files.is_file(source) or arrays.is_array(source)


def probe(source: Picture, where: str = "the image", policy: Policy = NATURAL) -> tuple[int, int]:
    """Return the (height, width) that an image will have once it is decoded, from its header.

    ``where`` names the image in errors. Raises ImageError for what is no image, LimitError beyond ``MAX_IMAGE_PIXELS``.
    """
    if (array := as_array(source, where)) is not None:
        return _within(policy.size(array, where), where)
    with opened(source, where) as image, sharing.alone(image):
        height, width, of_file = image.height, image.width, image is not source
        # A TIFF's size is already the upright one: Pillow turns the image itself while it loads it.
        turned = policy.turns(of_file) and image.format != "TIFF"
        on_its_side = turned and _orientation(image, header_only=of_file) in ON_ITS_SIDE
    return (width, height) if on_its_side else (height, width)


def decode(source: Picture, where: str = "the image", policy: Policy = NATURAL) -> Image.Image:
    """Return an image in mode RGB, as the policy reads it: the source itself, not a copy, where it is that already.

    Raises as ``probe``, and ImageError for an image that is truncated, damaged or of a mode that is no picture.
    """
    if (array := as_array(source, where)) is not None:
        _within(policy.size(array, where), where)
        return policy.picture(array, where)
    with opened(source, where) as image:
        of_file = image is not source
        with sharing.alone(image):
            image.load()
            turn = UPRIGHT.get(_orientation(image)) if policy.turns(of_file) else None
        image = policy.rgb(image, where, of_file)
    return image if turn is None else image.transpose(turn)


def frame(source: Picture, where: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a decoded image as (height, width, 3) bytes, C-contiguous.

    Raises as ``decode``, and ImageError for an image that no longer has the (height, width) that it was planned with.
    """
    pixels = np.asarray(decode(source, where))
    if pixels.shape[:2] != size:
        raise ImageError(f"{where} changed while it was read")
    return np.ascontiguousarray(pixels)


def as_array(source: Any, where: str) -> NDArray[Any] | None:
    """The pixels of an array or tensor as a plain array; None of everything else. Raises ImageError."""
    if isinstance(source, Image.Image) or not arrays.is_array(source):
        return None
    return arrays.plain(source, where, ImageError)


def label(source: object, index: int) -> str:
    """Return what errors call an image: its index, and its path or kind."""
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
def opened(source: Picture, where: str) -> Iterator[Image.Image]:
    """The image of a source that is no array: header read, size checked, pixels not decoded until they are loaded.

    Whatever Pillow raises inside becomes an ImageError or a LimitError. Its decoders raise nearly everything on
    damaged files, so everything is caught, except the package's own errors and MemoryError.
    """
    try:
        if isinstance(source, Image.Image):
            _within((source.height, source.width), where)
            yield source
        else:
            if not io_files.is_file(source):
                raise ImageError(f"{where} is no image; expected {EXPECTED}")
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
    """What ``PIL.Image.open`` does, except warn of large images, which ``_within`` refuses.

    To silence the warning would mean to change Python's filters for all threads. No file name is passed on, so that
    Pillow reads the file and never maps it: a mapped file that is cut short kills the process.
    """
    prefix = file.read(16)
    if not prefix:
        raise ImageError(f"{where} is empty (0 bytes)")
    for load_plugins in (Image.preinit, Image.init):
        load_plugins()
        for name, (factory, accepts) in list(Image.OPEN.items()):
            try:
                accepted = name not in REFUSED_FORMATS and (accepts is None or accepts(prefix))
                if accepted and not isinstance(accepted, str):  # a str says why this format cannot be read here
                    file.seek(0)
                    return factory(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue  # another format with the same first bytes
    file.seek(0)
    if container := video_container(file.read(HEAD)):
        raise ImageError(f"{where} is a video ({container}), not an image: pass it as videos=")
    hint = ": HEIC is read once pillow-heif is installed and registered" if prefix[4:11] == b"ftyphei" else ""
    raise ImageError(f"{where} is not an image that Pillow can read; it begins with {prefix!r}{hint}")


def _within(size: tuple[int, int], where: str) -> tuple[int, int]:
    """The (height, width), if it is within the limits."""
    height, width = size
    if min(height, width) < 1:
        raise ImageError(f"{where} has no pixels: it is {height} x {width} (height x width)")
    if height * width > MAX_IMAGE_PIXELS:
        raise ImageLimitError(
            f"{where} is {height} x {width}, {height * width:,} pixels; at most {MAX_IMAGE_PIXELS:,} are decoded: "
            "make it smaller first"
        )
    return size


def _orientation(image: Image.Image, header_only: bool = False) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or none that can be read."""
    try:
        # PngImageFile.getexif decodes the whole image where the header has no EXIF.
        exif = Image.Image.getexif(image) if header_only else image.getexif()
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:
        return 1
