"""Which size an image, or a frame of a video, is resized to: one function for each rule of transformers.

All return (height, width), multiples of the factor (the side of a merge unit in pixels), and equal transformers'
``smart_resize`` of the named file for every size, Python's rounding of halves to the even neighbour included.
"""

from __future__ import annotations

import math

from qwenvis.errors import ImageError

MAX_RATIO = 200


def area(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return the (height, width) whose area is within the limits and whose ratio is kept.

    ``smart_resize`` of image_processing_pil_qwen2_vl (cohere_compass has the same): ``round`` takes 2.5 to 2, so 70
    becomes 56 and not 84. At extreme ratios, the area may miss the limits by the last multiple.

    Raises ImageError for a side of zero and for sides whose ratio is over 200.
    """
    _refuse_empty(height, width)
    return _volume((height, width), (1, 1), factor, min_pixels, max_pixels)


def lifted(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """As `area`, after a side that is shorter than the factor has been lifted to it.

    ``smart_resize`` of image_processing_pil_paddleocr_vl. The ratio is that of the lifted sides, and rounding may have
    changed it. Raises as `area`.
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
    """Return the (height, width) for which frames x height x width is within the limits.

    ``factors`` are those of time and of a side. A side that is shorter than its factor is lifted first, and the ratio
    is that of the lifted sides. ``smart_resize`` of image_processing_pil_glm4v, for a still of as many frames as the
    factor of time, of video_processing_glm4v and of video_processing_qwen3_vl.

    Raises ImageError as `area`, and for fewer frames than the factor of time.
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
    """What the rules share: ``frames`` as they are, and as whole patches count them."""
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
    says what the frames become inside of it. There is no limit to the ratio.

    Raises ImageError for a side of zero, and where not even one merge unit is within ``max_pixels``.
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
    """The canvas of the highest content, of the ratio of the image, that is within the limit."""
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
    """Return the (height, width) of an image of ``sides`` inside of its `canvas`, at the top left; the rest is black.

    It is enlarged only where its volume is under ``min_pixels``. ``resize`` of image_processing_pil_glm5_next.
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
