"""Read animated images as videos: GIF, WebP, APNG, AVIF and FLI. Pillow decodes frames; durations are parsed here.

Frames are decoded like still images (`images.decode`): upright, on white. Formats with pages instead of frames (TIFF,
MPO, icons) are still images.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qwenvis.errors import ImageError, LimitError, VideoError
from qwenvis.images.decode import frame, opened, probe
from qwenvis.processors.frame_sampling import Length, Rate
from qwenvis.videos.decode import check_count, first_bytes

DEFAULT_DURATION = 0.1  # seconds, of a frame without a duration, as in browsers and FFmpeg
SHORTEST_OF_A_GIF = 0.02  # seconds; browsers and FFmpeg ignore shorter durations too


class Animation:
    """An animated image as a video of one loop: a `VideoSource`."""

    chosen = False
    damaged = 0

    def __init__(self, source: Any, where: str, fps: Rate | None) -> None:
        """Read the header and the duration of each frame.

        Raises ImageError or ImageLimitError for an unreadable image, VideoError for a PIL image (its file is needed),
        and VideoLimitError for too many frames.
        """
        if isinstance(source, Image.Image):
            raise VideoError(f"{where} is an animation at one of its frames: pass its file, or a list of its frames")
        self._source, self._where = source, where
        with opened(source, where) as image:
            self._skipped = _hidden_frames(image)
            count = _frames(image) - self._skipped
            check_count(count, where)
            self.size = probe(image, where)
            durations = _durations(image, source)[:count]
        ends = np.cumsum([*durations, *[DEFAULT_DURATION] * (count - len(durations))])
        times, total = np.concatenate([[0.0], ends[:-1]]), float(ends[-1])
        self.length = Length(count, count / total, total, times) if fps is None else Length(count, fps, count / fps)

    def frames(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield frames as a `VideoSource` does."""
        with opened(self._source, self._where) as image:
            for index in indices:
                image.seek(index + self._skipped)
                yield frame(image, f"{self._where}, frame {index}", self.size)


def format_of(source: Any) -> str | None:
    """Return Pillow's name for the format of an animation of several frames, or None for any other source."""
    try:
        with opened(source, "the image") as image:
            animated = image.format in DURATIONS and _frames(image) - _hidden_frames(image) > 1
    except (ImageError, LimitError):
        return None
    return image.format if animated else None


def _frames(image: Image.Image) -> int:
    return int(getattr(image, "n_frames", 1))


def _hidden_frames(image: Image.Image) -> int:
    """Count the leading frames that are not part of the animation: a PNG may have one, for programs without APNG."""
    return int(bool(getattr(image, "default_image", False)))


def _durations(image: Image.Image, source: Any) -> list[float]:
    """Return the seconds for which each frame is shown, for the frames whose duration the file specifies."""
    if image.format == "FLI":
        return [float(image.info["duration"]) / 1000 or DEFAULT_DURATION] * _frames(image)
    shortest = SHORTEST_OF_A_GIF if image.format == "GIF" else 0
    stored = DURATIONS[str(image.format)](first_bytes(source, -1))
    return [seconds if seconds and seconds >= shortest else DEFAULT_DURATION for seconds in stored]


def _gif(data: bytes) -> list[float]:
    """Parse the graphic control extensions: the delay, in 1/100 s, of the image that follows. The trailer is optional.

    Format: GIF89a specification, sections 20 to 23.
    """
    durations, delay = [], 0
    place = 13 + _colours(data[10])
    while (kind := _byte(data, place)) in (0x21, 0x2C):
        if kind == 0x21:
            if _byte(data, place + 1) == 0xF9:
                delay = int.from_bytes(data[place + 4 : place + 6], "little")
            place += 2
        else:
            durations.append(delay / 100)
            delay = 0
            place += 11 + _colours(_byte(data, place + 9))
        while length := _byte(data, place):
            place += 1 + length
        place += 1
    return durations


def _byte(data: bytes, place: int) -> int:
    """Return a byte, or 0 beyond the end."""
    return data[place] if place < len(data) else 0


def _colours(flags: int) -> int:
    """Return the size of a colour table in bytes."""
    return 3 << (flags % 8 + 1) if flags & 0x80 else 0


def _webp(data: bytes) -> list[float]:
    """Parse the ANMF chunks of a RIFF file: durations in milliseconds."""
    durations, place = [], 12
    while place + 24 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        if name == b"ANMF":
            durations.append(int.from_bytes(data[place + 20 : place + 23], "little") / 1000)
        place += 8 + size + size % 2
    return durations


def _apng(data: bytes) -> list[float]:
    """Parse the fcTL chunks: delays as fractions of a second."""
    durations, place = [], 8
    while place + 34 <= len(data):
        size, name = struct.unpack_from(">I4s", data, place)
        if name == b"fcTL":
            above, below = struct.unpack_from(">HH", data, place + 28)
            durations.append(above / (below or 100))
        place += 12 + size
    return durations


def _avif(data: bytes) -> list[float]:
    """Parse the time-to-sample table (stts) of the first picture track of an ISO base media file."""
    for track in _boxes(_box(data, b"moov"), b"trak"):
        media = _box(track, b"mdia")
        if _box(media, b"hdlr")[8:12] != b"pict":
            continue
        header, table = _box(media, b"mdhd"), media
        for name in (b"minf", b"stbl", b"stts"):
            table = _box(table, name)
        (scale,) = struct.unpack_from(">I", header, 20 if header[0] else 12)
        runs = np.frombuffer(table[8:], ">u4").reshape(-1, 2)
        check_count(int(runs[:, 0].sum()), "the image")
        return [float(ticks) / scale for ticks in np.repeat(runs[:, 1], runs[:, 0])]
    return []


def _boxes(data: bytes, name: bytes) -> Iterator[bytes]:
    """Yield the content of each box with a name."""
    place = 0
    while place + 8 <= len(data):
        size, found = struct.unpack_from(">I4s", data, place)
        if found == name:
            yield data[place + 8 : place + size]
        place += max(size, 8)


def _box(data: bytes, name: bytes) -> bytes:
    return next(_boxes(data, name), b"")


# Pillow's name of a format -> the parser of its frame durations, in seconds
DURATIONS: dict[str, Callable[[bytes], list[float]]] = {
    "GIF": _gif,
    "WEBP": _webp,
    "PNG": _apng,
    "AVIF": _avif,
    "FLI": lambda data: [],
}
