"""The files that a command reads and writes, looked at before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from qwenvis.cli import units
from qwenvis.errors import ImageError, InputError, VideoError, gathered

if TYPE_CHECKING:
    from pathlib import Path

    from qwenvis.images.decode import ImageInput
    from qwenvis.processors.image import ImageProcessor
    from qwenvis.videos.video import VideoItem


class Seen(NamedTuple):
    """One image that can be used: its file, its (height, width), and what it is resized and cut to."""

    path: str
    size: tuple[int, int]
    resized: tuple[int, int]
    grid: tuple[int, int, int]


def is_film(path: str) -> bool:
    """Whether a file is a video, by its bytes; by its name where they say nothing that is known."""
    from qwenvis.images.decode import probe
    from qwenvis.io.signatures import HEAD, video_container
    from qwenvis.videos.decode import SUFFIXES, first_bytes

    named = path.lower().endswith(SUFFIXES)
    try:
        if video_container(first_bytes(path, HEAD)):
            return True
        probe(path)
    except (VideoError, ImageError):
        return named
    return False


def moves(path: str) -> bool:
    """Whether a file is an animated image."""
    from qwenvis.videos.animation import format_of

    return format_of(path) is not None


def survey(
    paths: Sequence[str],
    processor: ImageProcessor,
    measure: Callable[[ImageInput, str], tuple[int, int]],
    watch: Callable[[str, int], VideoItem | None] | None = None,
) -> list[Seen]:
    """Look at every image; ``measure(path, label)`` returns its (height, width).

    ``watch(path, index)`` plans a video, and returns None for other files. Raises one error that lists all files that
    cannot be used.
    """
    from qwenvis.images.decode import label

    def see(path: str, index: int) -> Seen:
        if watch is not None and (film := watch(path, index)) is not None:
            return Seen(path, film.size, film.resized.canvas, film.grid)
        where = label(path, index)
        size = measure(path, where)
        try:
            return Seen(path, size, processor.resized(*size), processor.grid(*size))
        except ImageError as error:  # of the size, which says nothing of the image
            raise type(error)(f"{where}: {error}") from None

    return gathered((partial(see, path, index) for index, path in enumerate(paths)), "images")


def output(path: str, sources: Sequence[str] = ()) -> Path:
    """A file that can be written and that is none of the ``sources``; raises InputError for any other."""
    from pathlib import Path

    _refuse_a_dash(path)
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{target} is a directory; name a file in it")
    if target.exists():
        if not target.is_file():
            raise InputError(f"{target} is no regular file, so no file can take its place")
        if any(Path(source).exists() and target.samefile(source) for source in sources):
            raise InputError(f"{target} is one of the images; name another file to write")
        if not os.access(target, os.W_OK):
            raise InputError(f"{target} is read-only; name another file to write")
    _refuse_a_closed_parent(target)
    return target


def new_directory(path: str) -> Path:
    """A directory that can be made; raises InputError for any other, and for what is there already."""
    from qwenvis.checkpoints.files import expanded

    _refuse_a_dash(path)
    target = expanded(path)
    if os.path.lexists(target):
        raise InputError(f"{target} already exists; name a new directory")
    _refuse_a_closed_parent(target)
    return target


def _refuse_a_dash(path: str) -> None:
    """Raise InputError for what means stdout to other programs."""
    if path == "-":
        raise InputError("- names no file, and nothing is written to stdout; ./- is a file of that name")


def _refuse_a_closed_parent(target: Path) -> None:
    """Raise InputError where nothing can be written beside ``target``."""
    import tempfile

    if not target.parent.is_dir():
        raise InputError(f"{target} cannot be written: there is no directory {target.parent}")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror}") from error


def refuse_a_full_disk(target: Path, size: int) -> None:
    """Raise InputError where ``size`` bytes do not fit beside ``target``."""
    import shutil

    free = shutil.disk_usage(target.parent).free
    if free < size:
        raise InputError(f"{target} will take {units.nbytes(size)}; its disk has {units.nbytes(free)} free")
