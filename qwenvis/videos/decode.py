"""Decode video files with PyAV: length and size from the header and the first frame, then frames in order.

transformers reads videos in this way; `playback` reads them as a player does. FFmpeg gets the bytes of the file, never
its name; it may open neither another file nor the network, and reads no playlist. A frame is decoded, rotated upright
on request, converted to RGB if it is one of the chosen frames, and dropped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import IO, TYPE_CHECKING, Any, ParamSpec
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from qwenvis.errors import ImageError, QwenvisError, VideoError, VideoLimitError
from qwenvis.images.decode import MAX_IMAGE_PIXELS, probe
from qwenvis.io.files import is_file, opened
from qwenvis.io.signatures import HEAD, video_container
from qwenvis.processors.frame_sampling import Length, Rate

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# One day at 60 frames per second, and at 10 Mbit/s.
MAX_FRAMES = 24 * 3600 * 60
MAX_BYTES = 24 * 3600 * 10_000_000 // 8

OLDEST_PYAV = 18  # earlier versions are unsafe with a restricted list of containers

# FFmpeg's names of the containers that hold frames themselves, in contrast to playlists.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,gif,apng,ivf,h264,hevc,av1,obu,m4v,mjpeg,"
    "mpegvideo,dv,mxf,nut,rm,wtv,y4m,yuv4mpegpipe"
)

# Suffixes of video files, for callers that see only a file name.
SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".flv", ".ogv", ".3gp")

_P = ParamSpec("_P")
_Frames = Iterator[NDArray[np.uint8]]

# The generators whose decoders exist. FFmpeg decodes on threads, and freeing a decoder waits for these.
_decoders: WeakSet[_Frames] = WeakSet()


def decoder(frames: Callable[_P, _Frames]) -> Callable[_P, _Frames]:
    """Decorate a generator of decoded frames, so that the child of a fork never frees the decoder.

    The decoder's threads do not exist in the child, where freeing the decoder would wait for them for ever.
    """

    @wraps(frames)
    def registered(*args: _P.args, **options: _P.kwargs) -> _Frames:
        generator = frames(*args, **options)
        _decoders.add(generator)
        return generator

    return registered


def _keep_decoders() -> None:
    import ctypes

    for generator in _decoders:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(generator))


if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
    os.register_at_fork(after_in_child=_keep_decoders)


class VideoDecoder:
    """A video file as its header describes it: a `VideoSource`."""

    chosen = False
    damaged = 0

    def __init__(
        self, source: Any, where: str, *, fps: Rate | None = None, upright: bool = True, threads: int = 1
    ) -> None:
        """Read the header and decode the first frame; if the header lacks the number of frames, count the packets.

        As in transformers, the number in the header is trusted. ``fps`` overrides the rate of the file; ``upright``
        applies the rotation in its metadata; ``threads`` decode. Raises VideoError for a file that is not a video, and
        VideoLimitError for a video that is too large, before anything large is decoded.
        """
        self._source, self._where, self._upright, self._threads = source, where, upright, threads
        self._sides, self.length = self._planned(fps)
        self.size = self._sides
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()  # PyAV's own has threads, which do not survive a fork

    def _planned(self, fps: Rate | None) -> tuple[tuple[int, int], Length]:
        """Return the (height, width) of the rotated frames, and the length."""
        with self._opened() as (container, stream):
            count, rate = stream.frames, fps or stream.average_rate
            check_count(count, self._where)
            first = next(container.decode(stream), None)
            if first is None:
                raise VideoError(f"{self._where} has no decodable frame")
            sides = self._turned(first)
        if not count:
            count = self._counted()
        return sides, Length(count, float(rate) if rate else None, float(count / rate) if rate else None)

    @decoder
    def frames(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield frames as a `VideoSource` does; repeat the last frame if up to a second is missing at the end.

        Raises VideoError if more is missing, or if the file is damaged.
        """
        wanted, last = list(indices), None
        with self._opened() as (container, stream):
            for index, frame in enumerate(container.decode(stream)):
                if not wanted:
                    return
                last = (index, frame)
                if index < wanted[0]:
                    continue
                picture = self._pixels(frame, index)
                while wanted and wanted[0] == index:
                    yield picture
                    wanted.pop(0)
            if not wanted:
                return
            if last is None or wanted[-1] - last[0] > max(2, self.length.fps or 0):
                ended = 0 if last is None else last[0] + 1
                raise VideoError(f"{self._where} ends after {ended} of {self.length.frames} frames: it is truncated")
            picture = self._pixels(last[1], last[0])
            yield from [picture] * len(wanted)

    @contextmanager
    def _opened(self, threads: int | None = None) -> Iterator[tuple[InputContainer, VideoStream]]:
        """Open the container and its video stream; errors of FFmpeg become VideoErrors.

        That includes FFmpeg's out-of-memory error, because a damaged file may declare any size. Python's own
        MemoryError passes through.
        """
        av = _av(self._where)
        options = {"protocol_whitelist": "none", "format_whitelist": CONTAINERS}
        with self._damage(), _file(self._source, self._where) as file, av.open(file, options=options) as container:
            stream = self._stream(container)
            if stream is None:
                raise VideoError(f"{self._where} contains no video stream")
            if stream.codec_context is None:
                raise VideoError(f"{self._where} uses a codec that this build of FFmpeg does not know")
            check_sides(stream.codec_context.height, stream.codec_context.width, self._where)
            stream.codec_context.options = {"max_pixels": str(MAX_IMAGE_PIXELS)}
            stream.thread_type, stream.codec_context.thread_count = "AUTO", threads or self._threads
            yield container, stream

    @contextmanager
    def _damage(self) -> Iterator[None]:
        """Turn every error of FFmpeg inside into a VideoError."""
        from av.error import FFmpegError

        try:
            yield
        except QwenvisError:
            raise
        except (FFmpegError, OSError, ValueError, TypeError, ArithmeticError) as error:
            reason = getattr(error, "strerror", None) or error  # without FFmpeg's number and file name
            raise VideoError(f"{self._where} is not a video, or is damaged: {reason}") from error

    def _stream(self, container: InputContainer) -> VideoStream | None:
        """Return the first video stream."""
        return next(iter(container.streams.video), None)

    def _counted(self) -> int:
        """Count the packets, without decoding, for a header that lacks the number of frames."""
        with self._opened() as (container, stream):
            count = 0
            for packet in container.demux(stream):
                count += packet.size > 0
                check_count(count, self._where)
        return count

    def _turned(self, frame: VideoFrame) -> tuple[int, int]:
        """Return the (height, width) of a frame after rotation."""
        check_sides(frame.height, frame.width, self._where)
        sides = frame.height, frame.width
        return sides[::-1] if self._turns(frame) % 2 else sides

    def _turns(self, frame: VideoFrame) -> int:
        """Return the number of counter-clockwise quarter turns that make a frame upright."""
        return round(frame.rotation / 90) % 4 if self._upright else 0

    def _pixels(self, frame: VideoFrame, index: int) -> NDArray[np.uint8]:
        if self._turned(frame) != self._sides:
            (height, width), first = self._turned(frame), f"{self._sides[0]} x {self._sides[1]}"
            raise VideoError(
                f"{self._where}: frame {index} is {height} x {width} (height x width), but frame 0 is {first}"
            )
        with self._damage():  # FFmpeg cannot convert every colour space
            pixels = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, self._turns(frame)), np.uint8)


def _av(where: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise VideoError(
            f"{where} is read with PyAV, which is not installed: pip install 'qwenvis[video]' ({error})"
        ) from error
    if int(av.__version__.partition(".")[0]) < OLDEST_PYAV:
        raise VideoError(
            f"{where} is read with PyAV {OLDEST_PYAV} or later; installed is {av.__version__}: pip install -U av"
        )
    return av


@contextmanager
def _file(source: Any, where: str) -> Iterator[IO[bytes]]:
    """Open a source as a binary file at its start."""
    if not is_file(source):
        raise VideoError(
            f"{where} is not a video; expected a path, bytes, a seekable binary file, a uint8 array or tensor "
            "(T, H, W, 3), or a list of images"
        )
    with opened(source, where, VideoError) as file:
        size = file.seek(0, os.SEEK_END)
        if size > MAX_BYTES:
            raise VideoLimitError(f"{where} has {size:,} bytes; at most {MAX_BYTES:,} are read")
        file.seek(0)
        yield file


def first_bytes(source: Any, count: int) -> bytes:
    """Return the first ``count`` bytes of a source, or all bytes for -1.

    Raises VideoError for an unreadable source, VideoLimitError for a source that is too large.
    """
    with _file(source, "the video") as file:
        return file.read(count)


def is_video(source: Any, name: str) -> bool:
    """Return whether a file is a video: by its first bytes, else by the suffix of its name, unless Pillow reads it."""
    named = name.lower().endswith(SUFFIXES)
    try:
        if video_container(first_bytes(source, HEAD)):
            return True
        if named:
            probe(source)
    except (VideoError, ImageError):
        return named
    return False


def check_count(count: int, where: str) -> None:
    """Raise VideoLimitError for more than ``MAX_FRAMES`` frames."""
    if count > MAX_FRAMES:
        raise VideoLimitError(f"{where} has more than {MAX_FRAMES:,} frames, the limit: split the video into parts")


def check_sides(height: int, width: int, where: str) -> None:
    """Raise VideoLimitError for frames of more than ``MAX_IMAGE_PIXELS`` pixels."""
    if height * width > MAX_IMAGE_PIXELS:
        raise VideoLimitError(
            f"{where} has frames of {height} x {width}; at most {MAX_IMAGE_PIXELS:,} pixels are decoded"
        )
