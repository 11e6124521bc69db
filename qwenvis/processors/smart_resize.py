"""The size of an image, or of a frame of a video, after resizing: one function for each rule of transformers.

All return (height, width), multiples of the factor (the side of a merge unit in pixels), and equal ``smart_resize`` in
the named file of transformers for every size, with Python's rounding of halves to the even neighbour.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from qwenvis.errors import ImageError

MAX_RATIO = 200


class FrameSize(NamedTuple):
    """The (height, width) that an image or frame is resized to, ``content``, at the top left of a black ``canvas``."""

    canvas: tuple[int, int]
    content: tuple[int, int]


def area(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return the (height, width) with an area within the limits and the ratio of the image.

    ``smart_resize`` of image_processing_pil_qwen2_vl (the same as in cohere_compass): ``round`` takes 2.5 to 2, so 70
    becomes 56 and not 84. At extreme ratios, the area may miss the limits by the last multiple.

    Raises ImageError for a side of zero, and for sides whose ratio is above 200.
    """
    _refuse_empty(height, width)
    return _volume((height, width), (1, 1), factor, min_pixels, max_pixels)


def lifted(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return the size of `area` for an image whose shorter side, if below the factor, is first enlarged to it.

    ``smart_resize`` of image_processing_pil_paddleocr_vl. The ratio is that of the enlarged sides, which rounding may
    have changed. Raises the errors of `area`.
    """
    _refuse_empty(height, width)
    if height < factor:
        height, width = factor, round(width * factor / height)
    if width < factor:
        height, width = round(height * factor / width), factor
    return _volume((height, width), (1, 1), factor, min_pixels, max_pixels)


def volume(
    num_frames: int, height: int, width: int, factors: tuple[int, int], min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Return the (height, width) with which frames x height x width is within the limits.

    ``factors`` are those of time and of a side. A side below its factor is first enlarged to it, and the ratio is that
    of the enlarged sides. ``smart_resize`` of video_processing_glm4v, of video_processing_qwen3_vl, and of
    image_processing_pil_glm4v, where the number of frames of a still is the factor of time.

    Raises the errors of `area`, and ImageError for fewer frames than the factor of time.
    """
    temporal, factor = factors
    _refuse_empty(height, width)
    if num_frames < temporal:
        raise ImageError(f"t:{num_frames} must be larger than temporal_factor:{temporal}")
    if min(height, width) < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    frames = num_frames, round(num_frames / temporal) * temporal
    return _volume((height, width), frames, factor, min_pixels, max_pixels)


def _volume(
    sides: tuple[int, int], frames: tuple[int, int], factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Return the size within the limits; ``frames`` are their number, and their number in whole patches."""
    (height, width), (num_frames, padded) = sides, frames
    _refuse_ratio(height, width)
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    if padded * rows * columns > max_pixels:
        shrink = math.sqrt((num_frames * height * width) / max_pixels)
        rows = max(factor, math.floor(height / shrink / factor) * factor)
        columns = max(factor, math.floor(width / shrink / factor) * factor)
    elif padded * rows * columns < min_pixels:
        grow = math.sqrt(min_pixels / (num_frames * height * width))
        rows = math.ceil(height * grow / factor) * factor
        columns = math.ceil(width * grow / factor) * factor
    return rows, columns


def canvas(
    num_frames: int, height: int, width: int, factors: tuple[int, int], min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Return the smallest (height, width) that holds the frames without shrinking them, within the limits of a volume.

    ``smart_resize`` of image_processing_pil_glm5_next, whose limits are tokens of frames x factor² pixels. `content`
    is the size of the frames on the canvas. The ratio has no limit.

    Raises ImageError for a side of zero, and where a single merge unit exceeds ``max_pixels``.
    """
    temporal, factor = factors
    _refuse_empty(height, width)
    frames = max(temporal, round(num_frames / temporal) * temporal)
    rows, columns = _aligned(height, factor), _aligned(width, factor)
    if frames * rows * columns < min_pixels:
        grow = math.sqrt(min_pixels / (num_frames * height * width))
        rows = _aligned(max(1, math.ceil(height * grow)), factor)
        columns = _aligned(max(1, math.ceil(width * grow)), factor)
    if frames * rows * columns > max_pixels:
        return _largest_canvas(frames, height, width, factor, max_pixels)
    return rows, columns


def _largest_canvas(frames: int, height: int, width: int, factor: int, max_pixels: int) -> tuple[int, int]:
    """Return the canvas for the largest content, in the ratio of the image, that is within the limit."""
    if max_pixels < frames * factor**2:
        raise ImageError(
            f"max_pixels={max_pixels} is too small. At least {frames * factor**2} pixels are required for one aligned "
            "patch."
        )
    low, high, best = 1, height, (factor, factor)
    while low <= high:
        middle = (low + high) // 2
        tried = _aligned(middle, factor), _aligned(max(1, math.floor(width * middle / height)), factor)
        if frames * tried[0] * tried[1] <= max_pixels:
            best, low = tried, middle + 1
        else:
            high = middle - 1
    return best


def content(sides: tuple[int, int], canvas: tuple[int, int], num_frames: int, min_pixels: int) -> tuple[int, int]:
    """Return the (height, width) of an image of ``sides`` at the top left of its `canvas`; the rest is black.

    An image is enlarged only where its volume is below ``min_pixels``. ``resize`` of image_processing_pil_glm5_next.
    """
    (height, width), (rows, columns) = sides, canvas
    scale = min(rows / height, columns / width)
    if num_frames * height * width >= min_pixels:
        scale = min(1.0, scale)
    return max(1, min(rows, math.floor(height * scale))), max(1, min(columns, math.floor(width * scale)))


def _aligned(side: int, factor: int) -> int:
    return math.ceil(side / factor) * factor


def _refuse_empty(height: int, width: int) -> None:
    if min(height, width) < 1:
        raise ImageError(f"the image has no pixels: it is {height} x {width} (height x width)")


def _refuse_ratio(height: int, width: int) -> None:
    ratio = max(height, width) / min(height, width)
    if ratio > MAX_RATIO:
        raise ImageError(
            f"absolute aspect ratio must be smaller than {MAX_RATIO}, got {ratio}: "
            f"the image is {height} x {width} (height x width); crop or pad it"
        )
