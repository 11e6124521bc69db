"""Open any video input as a `VideoSource`: its length, its size, and its frames in order.

A video is a video file or an animated image (a path, bytes, or a binary file object), a uint8 array or tensor of frames
(T, H, W, 3), or a list of images of one size. At most the first frame is decoded on opening; chosen frames are decoded
one after another, and none is kept.
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
from qwenvis.images.decode import ImageInput
from qwenvis.io import arrays
from qwenvis.processors.frame_sampling import Length, Rate
from qwenvis.videos import animation
from qwenvis.videos.decode import VideoDecoder, check_count, check_sides
from qwenvis.videos.playback import PlaybackDecoder

VideoInput: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | NDArray[np.uint8]
    | arrays.SupportsArray
    | Sequence[ImageInput]
)


class VideoSource(Protocol):
    """An opened video: the common interface of files, animations, arrays and lists of images."""

    length: Length
    size: tuple[int, int]  # (height, width) for display
    chosen: bool  # whether the caller selected the frames: an array or a list, in contrast to a file
    damaged: int  # number of undecodable frames met so far

    def frames(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames of increasing indices, (rows, columns, 3) uint8, C-contiguous.

        Frames have their coded size, which may differ from ``size`` in its aspect ratio. Raises VideoError.
        """


def open_video(
    source: VideoInput,
    where: str,
    *,
    fps: Rate | None,
    upright: bool = True,
    by_header: bool = False,
    threads: int = 1,
) -> VideoSource:
    """Open a video; ``where`` names it in errors, and ``fps`` replaces the frame rate of a file.

    ``upright`` applies the rotation in a file's metadata. ``by_header`` trusts the header, as transformers does, in
    place of reading all packets. Raises VideoError for a source that is not a video, VideoLimitError for a video that
    is too large.
    """
    if arrays.is_array(source):
        return FrameArray(arrays.plain(source, where, VideoError), where, fps)
    if isinstance(source, list | tuple):
        return FrameList(source, where, fps)
    found = animation.format_of(source)
    if found and not (by_header and found == "GIF"):
        return animation.Animation(source, where, fps)
    decoder = VideoDecoder if by_header else PlaybackDecoder
    return decoder(source, where, fps=fps, upright=upright, threads=threads)


def is_still(source: Any) -> bool:
    """Return whether a source is a still image: an image in memory, or an image file without animation."""
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


class FrameArray:
    """A video in memory: an array (T, H, W, 3) uint8."""

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
        """Yield frames as a `VideoSource` does."""
        for index in indices:
            yield np.ascontiguousarray(self._frames[index])


class FrameList:
    """A list of images of one size, decoded like still images; only chosen frames are decoded."""

    chosen = True
    damaged = 0

    def __init__(self, frames: Sequence[ImageInput], where: str, fps: Rate | None) -> None:
        self._frames, self._where, self.length = frames, where, Length(len(frames), fps)
        self.size = (0, 0)
        check_count(len(frames), where)
        seen: set[int] = set()  # one image may be several of the frames
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
        """Yield frames as a `VideoSource` does."""
        for index in indices:
            yield image_decode.frame(self._frames[index], self._name(index), self.size)

    def _name(self, index: int) -> str:
        return f"{self._where}, frame {index}"


def label(source: object, index: int) -> str:
    """Return the name of a video in errors: its index, and its path or kind."""
    if isinstance(source, list | tuple):
        return f"video {index} ({type(source).__name__} of {len(source)})"
    return "video" + image_decode.label(source, index).removeprefix("image")


def _check(frames: int, size: tuple[int, int], where: str) -> None:
    """Raise VideoError for a video without pixels, VideoLimitError for frames that are too large."""
    if not frames or not min(size):
        raise VideoError(f"{where} has no pixels: it is {frames} frames of {size[0]} x {size[1]} (height x width)")
    check_sides(*size, where)
