"""The choice of frames of a video: one function for each rule of transformers, and one for the rule of qwen-vl-utils.

All take the length of a video and the wanted numbers, and return indices of frames in rising order, with repetitions
where a rule has them. They equal ``sample_frames`` of the named video processor, with its roundings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import TypeAlias, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from qwenvis.errors import InputError, VideoError, VideoLimitError, quoted

Rate: TypeAlias = int | float  # frames per second

LARGEST = 2**31 - 1  # of a number in a config or an argument, before any frame is counted
MAX_TAKEN = 2**20  # frames of a video: even the smallest frames in this number exceed the limit of pixels
ASSUMED_FPS = 24  # transformers' rate for frames of unknown rate

# qwen-vl-utils 0.0.14: FPS, FPS_MIN_FRAMES, FPS_MAX_FRAMES, FRAME_FACTOR
REFERENCE_FPS, REFERENCE_MIN_FRAMES, REFERENCE_MAX_FRAMES, REFERENCE_FACTOR = 2.0, 4, 768, 2


@dataclass(frozen=True)
class Length:
    """The length of a video: the number of frames, and their rate if it is known."""

    frames: int
    fps: Rate | None
    duration: Rate | None = None  # seconds, as the file states them
    times: NDArray[np.float64] | None = field(default=None, compare=False)  # seconds of each frame in a file

    def seconds(self, indices: Sequence[int]) -> list[float]:
        """Return the times of frames in seconds: those of the file, else index / rate, with 24 for an unknown rate."""
        if self.times is not None:
            return [float(self.times[index]) for index in indices]
        rate = self.fps or ASSUMED_FPS
        return [index / rate for index in indices]


@dataclass(frozen=True)
class Wanted:
    """The wanted number of frames: ``num_frames``, else by ``fps``, from ``min_frames`` to ``max_frames``."""

    fps: Rate | None = None
    num_frames: int | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    max_duration: int | None = None  # seconds; 0 is no limit
    temporal_patch_size: int = 2


class SamplingArguments(TypedDict, total=False):
    """The fields of `Wanted` that are arguments of a call."""

    fps: Rate | None
    num_frames: int | None
    min_frames: int | None
    max_frames: int | None


def checked(given: Mapping[str, object]) -> SamplingArguments:
    """Return the numbers among the arguments of a call. Raises InputError for a value that is no number above 0."""
    checks = {name: checked_rate if name == "fps" else checked_count for name in SamplingArguments.__annotations__}
    numbers = {name: check(given[name], name) for name, check in checks.items() if given.get(name) is not None}
    return cast(SamplingArguments, numbers)


def checked_count(value: object, name: str) -> int:
    """Return a number of frames, at least 1. Raises InputError with the ``name`` of the argument."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value <= LARGEST:
        raise InputError(f"{name} is {quoted(value)}; expected a whole number from 1 to {LARGEST:,}")
    return int(value)


def checked_rate(value: object, name: str) -> Rate:
    """Return frames per second, above 0, from a number of Python or NumPy, or a fraction such as PyAV's rates.

    Raises InputError with the ``name`` of the argument.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 1 / LARGEST < value < LARGEST:  # type: ignore[operator]
        raise InputError(f"{name} is {quoted(value)}; expected frames per second, above 0 and below {LARGEST:,}")
    return int(value) if isinstance(value, Integral) else float(value)


def every(length: Length, wanted: Wanted) -> list[int]:
    """Take all frames."""
    return list(range(_bounded(length.frames)))


def even(length: Length, wanted: Wanted) -> list[int]:
    """Take a multiple of temporal_patch_size frames, at even steps: Qwen2VLVideoProcessor."""
    total, factor = length.frames, wanted.temporal_patch_size
    if wanted.num_frames is not None:
        count = round(wanted.num_frames / factor) * factor
    elif wanted.fps is not None:
        most = math.floor(min(_required(wanted.max_frames), total) / factor) * factor
        exact = total / _rate(length, wanted) * wanted.fps
        count = math.floor(min(max(exact, _required(wanted.min_frames)), most, total) / factor) * factor
    else:
        return every(length, wanted)
    _refuse_count(count, total, factor)
    return [index for index in _arange(total, count) if index < total]


def _arange(total: int, count: int) -> list[int]:
    """Compute ``torch.arange(0, total, total / count).int()``, whose values are float32.

    Registers of 8 values begin at a value that has been rounded to float32, in pairs of whole registers; the remaining
    values are rounded once. This is PyTorch's order on CPUs with AVX2; with AVX-512 the registers have 16 values.
    """
    step = total / count
    i = np.arange(math.ceil(total / step))
    values = step * i
    whole = len(i) // 16 * 16
    starts = np.repeat(values[:whole:8].astype(np.float32), 8).astype(np.float64)
    values[:whole] = starts + step * (i[:whole] % 8)
    indices: list[int] = values.astype(np.float32).astype(np.int64).tolist()
    return indices


def ends(length: Length, wanted: Wanted) -> list[int]:
    """Take frames evenly from the first to the last: Qwen3VLVideoProcessor. An unknown rate counts as 24."""
    total, least, most = length.frames, int(_required(wanted.min_frames)), int(_required(wanted.max_frames))
    if wanted.num_frames is not None:
        return _linspace(total, wanted.num_frames)
    if wanted.fps is None:
        return _linspace(total, min(max(total, least), most))
    count = int(total / (length.fps or ASSUMED_FPS) * wanted.fps)
    return _linspace(total, min(max(count, least), most, total))


def reference(length: Length, wanted: Wanted) -> list[int]:
    """Take an even number of frames, evenly from the first to the last: ``smart_nframes`` of qwen-vl-utils."""
    total, factor = length.frames, REFERENCE_FACTOR
    if wanted.num_frames is not None:
        count = round(wanted.num_frames / factor) * factor
    else:
        fps = REFERENCE_FPS if wanted.fps is None else wanted.fps
        least = REFERENCE_MIN_FRAMES if wanted.min_frames is None else wanted.min_frames
        most = min(REFERENCE_MAX_FRAMES, total) if wanted.max_frames is None else wanted.max_frames
        exact = total / _rate(length, wanted) * fps
        exact = min(min(max(exact, math.ceil(least / factor) * factor), math.floor(most / factor) * factor), total)
        count = math.floor(exact / factor) * factor
    _refuse_count(count, total, factor)
    return _linspace32(total, count)


def seconds(length: Length, wanted: Wanted) -> list[int]:
    """Take ``fps`` frames of each second; beyond max_duration, the number it holds, evenly: Glm4vVideoProcessor."""
    last, rate, fps = length.frames - 1, _rate(length, wanted), _required(wanted.fps)
    duration = length.duration or round(last / rate) + 1
    if duration <= _required(wanted.max_duration):
        count = _bounded(max(math.floor(duration * fps), 1))
        indices = [min(last, math.ceil(i * rate / fps)) for i in range(count)]
    elif (count := int(_required(wanted.max_duration) * fps)) >= length.frames:
        indices = every(length, wanted)
    else:
        indices = [min(last, math.ceil(t * rate)) for t in np.linspace(0, duration, _bounded(count)).tolist()]
    return _paired(indices)


# Glm46VVideoProcessor: the longest duration in seconds for which each rate is used, frames, seconds
DYNAMIC_FPS, DYNAMIC_MAX_FRAMES, DYNAMIC_MAX_DURATION = ((30, 3), (300, 1), (math.inf, 0.5)), 640, 2400


def dynamic(length: Length, wanted: Wanted) -> list[int]:
    """Take more frames per second of a short video than of a long one: Glm46VVideoProcessor."""
    duration = length.duration or round((length.frames - 1) / _rate(length, wanted)) + 1
    looked_at = min(duration, DYNAMIC_MAX_DURATION)
    rate = next(fps for longest, fps in DYNAMIC_FPS if looked_at <= longest) * wanted.temporal_patch_size
    count = min(int(looked_at * rate), DYNAMIC_MAX_FRAMES)
    return _by_the_clock(length, _rate(length, wanted), count, rate, int(duration))


def clock(length: Length, wanted: Wanted) -> list[int]:
    """Take the first frame at or after each tick of 1 / fps seconds: Glm5NextVideoProcessor."""
    duration = length.duration or round((length.frames - 1) / _rate(length, wanted)) + 1
    limit, fps = wanted.max_duration, _required(wanted.fps)
    looked_at = min(duration, limit) if limit else duration
    count = int(min(int(looked_at * fps), _required(wanted.max_frames)))
    return _by_the_clock(length, _rate(length, wanted), count, fps, int(duration))


def _by_the_clock(length: Length, rate: Rate, count: int, fps: Rate, most_seconds: int) -> list[int]:
    """Take ``count`` frames: one for each tick if there are ``count`` such frames, else evenly."""
    total, count, frame, tick = length.frames, _bounded(count), 1 / rate, 1 / fps
    indices: list[int] = []
    due, index = 0.0, 0
    while total >= count >= len(indices) and (not indices or due < most_seconds):  # one too many is enough
        index = max(index, int(due / frame) - 1)
        while index * frame < due:
            index += 1
        if index >= total:
            break
        due += tick
        indices.append(index)
        index += 1
    first, last = (indices[0], indices[-1]) if indices and len(indices) < count else (0, total - 1)
    if len(indices) != count:
        indices = np.linspace(first, last, count, dtype=int).tolist()
    return _paired(indices)


def _paired(indices: Sequence[int]) -> list[int]:
    """Return each frame once, and the last frame twice if the number is odd."""
    once = list(dict.fromkeys(indices))
    return once + once[-1:] if len(once) % 2 else once


def _linspace(total: int, count: int) -> list[int]:
    indices: list[int] = np.linspace(0, total - 1, _bounded(count)).round().astype(int).tolist()
    return indices


def _rate(length: Length, wanted: Wanted) -> Rate:
    if not length.fps:
        raise VideoError("the frame rate of this video is unknown; pass video_fps, or num_frames")
    return length.fps


def _required(value: int | Rate | None) -> Rate:
    if value is None:
        raise VideoError("the checkpoint does not state a sampling rate; pass fps")
    return value


def _refuse_count(count: int, total: int, factor: int) -> None:
    """Raise VideoError for a rule that takes multiples of ``factor`` frames and finds none, or more than there are."""
    if not factor <= count <= total:
        raise VideoError(
            f"the video has {total} frames, of which {count} would be chosen, a multiple of {factor}; "
            f"expected {factor} to {total}: change num_frames or fps"
        )
    _bounded(count)


def _bounded(count: int) -> int:
    """Return the number of frames to take, before a list is made. Raises VideoLimitError above ``MAX_TAKEN``."""
    if count > MAX_TAKEN:
        raise VideoLimitError(
            f"{count:,} frames would be examined; at most {MAX_TAKEN:,} are allowed: "
            "lower num_frames, fps or max_frames"
        )
    return count


def _linspace32(total: int, count: int) -> list[int]:
    """Compute ``torch.linspace(0, total - 1, count).round()``: float32 from both ends, the second half rounded once."""
    step = np.float32(np.float32(total - 1) / np.float32(count - 1))
    i = np.arange(count)
    front = step * i.astype(np.float32)
    back = ((total - 1) - np.float64(step) * (count - 1 - i)).astype(np.float32)
    indices: list[int] = np.where(i < count // 2, front, back).round().astype(np.int64).tolist()
    return indices
