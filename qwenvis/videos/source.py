"""Whatever people pass as a video: how long and how large it is, and its frames, one after the other.

A video is a file (a path, its bytes, a binary file object) of a film or an animated image, a uint8 array or tensor of
frames (T, H, W, 3), or a list of pictures of one size. A clip is the common interface to all of them: its length and
size are known once the first frame is decoded, and it yields chosen frames, in order, without keeping any.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import IO, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qwenvis.errors import ImageError, ImageLimitError, VideoError
from qwenvis.images import decode as image_decode
from qwenvis.images.decode import Picture
from qwenvis.io import arrays
from qwenvis.processors.frame_sampling import Length, Rate
from qwenvis.videos import animation
from qwenvis.videos.decode import VideoDecoder, check_count, check_sides
from qwenvis.videos.playback import Playback

Video: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | NDArray[np.uint8]
    | arrays.Tensor
    | Sequence[Picture]
)


class VideoSource(Protocol):
    """A video before its frames are looked at."""

    length: Length
    size: tuple[int, int]  # (height, width), as seen
    chosen: bool  # whether the caller has chosen its frames already
    damaged: int  # frames that could not be decoded, so far

    def frames(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """The frames of rising indices, (rows, columns, 3) uint8, C-contiguous, as stored: a film may be shown wider.

        Raises VideoError.
        """


def video_source(
    source: Video,
    where: str,
    *,
    fps: Rate | None,
    upright: bool = True,
    by_header: bool = False,
    threads: int = 1,
) -> VideoSource:
    """The clip of a source; ``where`` names it in errors. ``fps`` is that of frames, and overrides a file's.

    ``upright``: whether a file is turned as its metadata says. ``by_header``: whether a file is what its header says,
    as in transformers, or what can be played. Raises VideoError for what is no video, LimitError for a video that is
    too large.
    """
    if arrays.is_array(source):
        return Frames(arrays.plain(source, where, VideoError), where, fps)
    if isinstance(source, list | tuple):
        return Pictures(source, where, fps)
    found = animation.format_of(source)
    if found and not (by_header and found == "GIF"):
        return animation.Animation(source, where, fps)
    film = VideoDecoder if by_header else Playback
    return film(source, where, fps=fps, upright=upright, threads=threads)


def is_picture(source: Any) -> bool:
    """Whether this is a still among videos: an image in memory, or an image file that is not animated."""
    if isinstance(source, list | tuple):
        return False
    if isinstance(source, Image.Image):
        return animation.format_of(source) is None
    try:
        if arrays.is_array(source):
            return arrays.plain(source, "the image", ImageError).ndim in (2, 3)
        image_decode.probe(source)
    except ImageLimitError:
        return True
    except ImageError:
        return False
    return animation.format_of(source) is None


class Frames:
    """An array (T, H, W, 3)."""

    chosen = True
    damaged = 0

    def __init__(self, frames: NDArray[Any], where: str, fps: Rate | None) -> None:
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            last = "; channels come last: pass np.moveaxis(frames, 1, -1), of a tensor frames.permute(0, 2, 3, 1)"
            remedy = last if frames.shape[1:2] == (3,) else ""
            raise VideoError(f"{where}: expected uint8 frames (T, H, W, 3), got {frames.dtype} {frames.shape}{remedy}")
        check_count(len(frames), where)
        self._frames, self.size, self.length = frames, frames.shape[1:3], Length(len(frames), fps)
        _check(self.length.frames, self.size, where)

    def frames(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """As `VideoSource`."""
        for index in indices:
            yield np.ascontiguousarray(self._frames[index])


class Pictures:
    """A list of pictures of one size, decoded as stills are; only chosen frames are decoded."""

    chosen = True
    damaged = 0

    def __init__(self, frames: Sequence[Picture], where: str, fps: Rate | None) -> None:
        self._frames, self._where, self.length = frames, where, Length(len(frames), fps)
        self.size = (0, 0)
        check_count(len(frames), where)
        seen: set[int] = set()  # one picture may be many of the frames
        for index, frame in enumerate(frames):
            if id(frame) in seen:
                continue
            seen.add(id(frame))
            size = image_decode.probe(frame, self._name(index))
            if index and size != self.size:
                first = f"frame 0 is {self.size[0]} x {self.size[1]}"
                raise VideoError(f"{self._name(index)} is {size[0]} x {size[1]} (height x width), but {first}")
            self.size = size
        _check(len(frames), self.size, where)

    def frames(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """As `VideoSource`."""
        for index in indices:
            yield image_decode.frame(self._frames[index], self._name(index), self.size)

    def _name(self, index: int) -> str:
        return f"{self._where}, frame {index}"


def label(source: object, index: int) -> str:
    """What errors call a video: its index, and its path or kind."""
    if isinstance(source, list | tuple):
        return f"video {index} ({type(source).__name__} of {len(source)})"
    return "video" + image_decode.label(source, index).removeprefix("image")


def _check(frames: int, size: tuple[int, int], where: str) -> None:
    """Raise VideoError for a video without pixels, LimitError for one whose frames are too large."""
    if not frames or not min(size):
        raise VideoError(f"{where} has no pixels: it is {frames} frames of {size[0]} x {size[1]} (height x width)")
    check_sides(*size, where)
