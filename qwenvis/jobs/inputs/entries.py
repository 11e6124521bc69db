"""An input of a job: its unique name, and the place of its bytes."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import NamedTuple

from qwenvis.videos.decode import SUFFIXES as VIDEOS

# Suffixes of the files that a directory or a tar contributes unless patterns say otherwise.
IMAGES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"),
    *(".heic", ".heif", ".jp2", ".ppm", ".pgm", ".pbm", ".tga", ".ico"),
)
SUFFIXES = (*IMAGES, *VIDEOS)

KINDS = ("", "image", "video")


class Entry(NamedTuple):
    """An image or a video: a file, a part of a file (in a tar), or a row of a Parquet column.

    - ``source``: its name, the path of a file as the input gives it, or CONTAINER#MEMBER.
    - ``file``: the container that holds it; empty if ``source`` is the path.
    - ``offset``, ``length``: the place of its bytes in a tar.
    - ``column``, ``row``: its place in a Parquet file.
    - ``kind``: "image" or "video" if the input says so; else its first bytes tell.
    """

    source: str
    file: str = ""
    offset: int = 0
    length: int = -1
    column: str = ""
    row: int = -1
    kind: str = ""

    def line(self) -> str:
        """Return the entry as a line of JSON, without the fields that have their default."""
        told = zip(self._fields, self, strict=True)
        return json.dumps({key: value for key, value in told if value != self._field_defaults.get(key)}) + "\n"

    @classmethod
    def parse(cls, line: str) -> Entry:
        """Return the entry of a line that `line` made."""
        return cls(**json.loads(line))


def wanted(name: str, include: tuple[str, ...]) -> bool:
    """Return whether a path matches one of the patterns, or without patterns has the suffix of an image or a video.

    A pattern is matched with the end of the path, as `PurePath.match` does: ``*.png``, ``val/*.jpg``.
    """
    if include:
        return any(PurePath(name).match(pattern) for pattern in include)
    return name.lower().endswith(SUFFIXES)
