"""The files that a command writes, checked before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qwenvis.cli import units
from qwenvis.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image


def output(path: str, sources: Sequence[str] = ()) -> Path:
    """Return the path of a file to write. Raises InputError if it cannot be written or is one of the ``sources``."""
    from qwenvis.io.files import expanded

    _refuse_a_dash(path)
    target = expanded(path)
    if target.is_dir():
        raise InputError(f"{target} is a directory; name a file in it")
    if target.exists():
        if not target.is_file():
            raise InputError(f"{target} is not a regular file, so it cannot be replaced")
        if any(source.exists() and target.samefile(source) for source in map(expanded, sources)):
            raise InputError(f"{target} is one of the images; name another file to write")
        if not os.access(target, os.W_OK):
            raise InputError(f"{target} is read-only; name another file to write")
    _refuse_a_closed_parent(target)
    return target


def picture(path: str, sources: Sequence[str] = ()) -> Path:
    """Return the path of a picture to write, as `output`. Raises InputError for a format that Pillow does not write."""
    target = output(path, sources)
    if not _is_written(target.suffix.lower()):
        raise InputError(
            f"{target}: Pillow cannot write {target.suffix or 'a file without a suffix'}; name a .png file"
        )
    return target


def _is_written(suffix: str) -> bool:
    """Return whether Pillow writes RGB pictures in the format of a suffix. Some formats are registered, but fail."""
    from io import BytesIO

    from PIL import Image

    kind = Image.registered_extensions().get(suffix)
    if kind not in Image.SAVE:
        return False
    try:
        Image.new("RGB", (16, 16)).save(BytesIO(), kind)
    except (OSError, ValueError):
        return False
    return True


def save_picture(page: Image.Image, target: Path) -> None:
    """Write a picture, the whole file or none."""
    from PIL import Image

    from qwenvis.io.drafts import whole_file

    with whole_file(target) as draft:
        page.save(draft, Image.registered_extensions()[target.suffix.lower()])


def new_directory(path: str) -> Path:
    """Return the path of a directory to create. Raises InputError if it exists already or cannot be created."""
    from qwenvis.io.files import expanded

    _refuse_a_dash(path)
    target = expanded(path)
    if os.path.lexists(target):
        raise InputError(f"{target} already exists; name a new directory")
    _refuse_a_closed_parent(target)
    return target


def _refuse_a_dash(path: str) -> None:
    """Raise InputError for "-", which other programs take for stdout."""
    if path == "-":
        raise InputError("'-' is not a file name, and nothing is written to stdout; a file of that name is ./-")


def _refuse_a_closed_parent(target: Path) -> None:
    """Raise InputError if no file can be created beside ``target``."""
    import tempfile

    if not target.parent.is_dir():
        raise InputError(f"{target} cannot be written: there is no directory {target.parent}")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror}") from error


def refuse_a_full_disk(target: Path, size: int) -> None:
    """Raise InputError if the disk of ``target`` has less than ``size`` bytes free."""
    import shutil

    free = shutil.disk_usage(target.parent).free
    if free < size:
        raise InputError(f"{target} will take {units.nbytes(size)}; its disk has {units.nbytes(free)} free")
