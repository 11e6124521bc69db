"""Animated images as videos: GIF, WebP, APNG, AVIF and FLI. Pillow decodes the frames; their times are read here.

Frames are read as `images.decode` reads stills: upright, on white. Pages are no animation: TIFF, MPO and icons are
stills.
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

UNTOLD = 0.1  # seconds of a frame without a duration, as in browsers and in FFmpeg
SHORTEST_OF_A_GIF = 0.02  # seconds: a shorter duration counts as none, as there


class Animation:
    """An animated image, shown once."""

    chosen = False
    damaged = 0

    def __init__(self, source: Any, where: str, fps: Rate | None) -> None:
        """Read the header and the duration of each frame. Raises ImageError, VideoError, or LimitError."""
        if isinstance(source, Image.Image):
            raise VideoError(
                f"{where} has several frames and shows one of them: pass its file, or a list of its frames"
            )
        self._source, self._where = source, where
        with opened(source, where) as image:
            self._skipped = _hidden_frames(image)
            count = _frames(image) - self._skipped
            check_count(count, where)
            self.size = probe(image, where)
            told = _durations(image, source)[:count]
        ends = np.cumsum([*told, *[UNTOLD] * (count - len(told))])
        times, whole = np.concatenate([[0.0], ends[:-1]]), float(ends[-1])
        self.length = Length(count, count / whole, whole, times) if fps is None else Length(count, fps, count / fps)

    def frames(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """As `Clip`."""
        with opened(self._source, self._where) as image:
            for index in indices:
                image.seek(index + self._skipped)
                yield frame(image, f"{self._where}, frame {index}", self.size)


def format_of(source: Any) -> str | None:
    """Pillow's name of the format of an animation of several frames; None of everything else."""
    try:
        with opened(source, "the image") as image:
            animated = image.format in DURATIONS and _frames(image) - _hidden_frames(image) > 1
    except (ImageError, LimitError):
        return None
    return image.format if animated else None


def _frames(image: Image.Image) -> int:
    return int(getattr(image, "n_frames", 1))


def _hidden_frames(image: Image.Image) -> int:
    """The number of leading frames for programs without animations: a PNG may have one."""
    return int(bool(getattr(image, "default_image", False)))


def _durations(image: Image.Image, source: Any) -> list[float]:
    """Seconds that each frame is shown, as far as the file says."""
    if image.format == "FLI":
        return [float(image.info["duration"]) / 1000 or UNTOLD] * _frames(image)
    shortest = SHORTEST_OF_A_GIF if image.format == "GIF" else 0
    told = DURATIONS[str(image.format)](first_bytes(source, -1))
    return [seconds if seconds and seconds >= shortest else UNTOLD for seconds in told]


def _gif(data: bytes) -> list[float]:
    """Delays of the graphic control extensions, in hundredths, each of the image after it. A trailer may be missing."""
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
    """A byte; 0 behind the end."""
    return data[place] if place < len(data) else 0


def _colours(flags: int) -> int:
    """Bytes of a table of colours."""
    return 3 << (flags % 8 + 1) if flags & 0x80 else 0


def _webp(data: bytes) -> list[float]:
    """Durations of the ANMF chunks, in milliseconds."""
    durations, place = [], 12
    while place + 24 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        if name == b"ANMF":
            durations.append(int.from_bytes(data[place + 20 : place + 23], "little") / 1000)
        place += 8 + size + size % 2
    return durations


def _apng(data: bytes) -> list[float]:
    """Delays of the fcTL chunks, as fractions of a second."""
    durations, place = [], 8
    while place + 34 <= len(data):
        size, name = struct.unpack_from(">I4s", data, place)
        if name == b"fcTL":
            above, below = struct.unpack_from(">HH", data, place + 28)
            durations.append(above / (below or 100))
        place += 12 + size
    return durations


def _avif(data: bytes) -> list[float]:
    """The time-to-sample table of the first track of pictures."""
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
    """What the boxes of a name hold."""
    place = 0
    while place + 8 <= len(data):
        size, found = struct.unpack_from(">I4s", data, place)
        if found == name:
            yield data[place + 8 : place + size]
        place += max(size, 8)


def _box(data: bytes, name: bytes) -> bytes:
    return next(_boxes(data, name), b"")


# Pillow's name of a format -> seconds of each frame, of its bytes
DURATIONS: dict[str, Callable[[bytes], list[float]]] = {
    "GIF": _gif,
    "WEBP": _webp,
    "PNG": _apng,
    "AVIF": _avif,
    "FLI": lambda data: [],
}
