"""The files that a command reads and writes, looked at before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from qwenvis.cli import units
from qwenvis.errors import ImageError, InputError, LimitError, VideoError

if TYPE_CHECKING:
    from pathlib import Path

    from qwenvis.pictures import Picture
    from qwenvis.processors import ImageProcessor
    from qwenvis.videos import Footage


class Seen(NamedTuple):
    """One image that can be used: its file, its (height, width), and what it is resized and cut to."""

    path: str
    size: tuple[int, int]
    resized: tuple[int, int]
    grid: tuple[int, int, int]


def is_film(path: str) -> bool:
    """Whether a file is a video, by its bytes; by its name where they say nothing that is known."""
    from qwenvis.films import SUFFIXES, first_bytes
    from qwenvis.pictures import probe
    from qwenvis.signatures import HEAD, video_container

    named = path.lower().endswith(SUFFIXES)
    try:
        if video_container(first_bytes(path, HEAD)):
            return True
        probe(path)
    except (VideoError, ImageError, LimitError):
        return named
    return False


def moves(path: str) -> bool:
    """Whether a file is an animated image."""
    from qwenvis.animations import format_of

    return format_of(path) is not None


def survey(
    paths: Sequence[str],
    processor: ImageProcessor,
    measure: Callable[[Picture, str], tuple[int, int]],
    watch: Callable[[str, int], Footage | None] | None = None,
) -> list[Seen]:
    """Look at every image; ``measure(path, label)`` returns its (height, width), ``watch(path, index)`` plans a video.

    It returns None for what is no video.
    Raises one ImageError that lists all that cannot be used.
    """
    from qwenvis.errors import MOST_LISTED
    from qwenvis.pictures import label

    seen, errors = [], []
    for index, path in enumerate(paths):
        where = label(path, index)
        try:
            if watch is not None and (film := watch(path, index)) is not None:
                seen.append(Seen(path, film.clip.size, film.size.canvas, film.grid))
                continue
            size = measure(path, where)
            seen.append(Seen(path, size, processor.resized(*size), processor.grid(*size)))
        except VideoError as error:
            errors.append(str(error))
        except (ImageError, LimitError) as error:
            errors.append(str(error) if where in str(error) else f"{where}: {error}")
    if len(errors) > 1:
        more = [f"and {len(errors) - MOST_LISTED} more"] if len(errors) > MOST_LISTED else []
        lines = [f"{len(errors)} of {len(paths)} images cannot be used:", *errors[:MOST_LISTED], *more]
        raise ImageError("\n  ".join(lines))
    if errors:
        raise ImageError(errors[0])
    return seen


def output(path: str, sources: Sequence[str] = ()) -> Path:
    """A file that can be written and that is none of the ``sources``; raises InputError for any other."""
    from pathlib import Path

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
    from qwenvis.directory import expanded

    target = expanded(path)
    if os.path.lexists(target):
        raise InputError(f"{target} is there already; name a directory that is not")
    _refuse_a_closed_parent(target)
    return target


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
