"""A checkpoint's directory: the files that lie in it, the JSON objects in them, and how a new one comes to be."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qwenvis.errors import CheckpointError, InputError, quoted, shown
from qwenvis.io.files import open_regular, reason

# Published configs end at some 300 kB, lists of what is not quantised included. Of JSON that is all brackets, Python
# makes 25 bytes a byte.
MAX_JSON_BYTES = 2_000_000


def read_json(
    directory: Path, name: str, error: type[CheckpointError], most: int = MAX_JSON_BYTES, entries: int = MAX_JSON_BYTES
) -> dict[str, Any] | None:
    """The object in a JSON file, None where there is no such file.

    Raises ``error`` for JSON that is no object and, before it is parsed, for a file of more than ``most`` bytes or more
    than ``entries`` entries.
    """
    path = regular_file(directory, name)
    if path is None:
        return None
    try:
        with open_regular(path) as file:
            text = file.read(most + 1) or b""  # None of a file of /proc that has nothing to tell yet
        if len(text) > most:
            raise error(f"{path} has more than {most:,} bytes, which are the most that are read")
        if text.count(b",") >= entries or text.count(b"[") >= entries or text.count(b"{") >= entries:
            raise error(f"{path} has more than {entries:,} entries, which are the most that are read")
        content = json.loads(text)
    except CheckpointError:
        raise
    except (OSError, ValueError, RecursionError) as cause:
        raise error(f"{path} cannot be read as JSON: {cause}") from cause
    if not isinstance(content, dict):
        raise error(f"{path} holds a JSON {type(content).__name__}; expected an object")
    return content


def regular_file(directory: Path, name: str) -> Path | None:
    """The file of that name, None where there is none.

    Raises CheckpointError for what is there and may not be read or is no regular file, and for a link that leads
    nowhere or out of the checkpoint.
    """
    path = directory / name
    try:
        open_regular(path).close()
    except (FileNotFoundError, NotADirectoryError) as error:
        if not path.is_symlink():
            return None
        said = f"{path} is a link to {shown(str(path.readlink()))}, which is not here; put that file there, or no link"
        raise CheckpointError(said) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error)}") from error
    home, real = directory.resolve(), path.resolve()
    roots = [home]
    if home.parent.name == "snapshots" and home.parent.parent.name.startswith("models--"):
        # A snapshot is links into its repo's blobs, which huggingface_hub 2 in turn links into the cache's own blobs.
        repo = home.parent.parent
        roots += [repo / "blobs", repo.parent / "blobs"]
    if not any(real.is_relative_to(root) for root in roots):
        raise CheckpointError(f"{path} is a link to {real}, outside the checkpoint; copy that file into {directory}")
    return path


@contextmanager
def draft_of(directory: Path) -> Iterator[Path]:
    """An empty directory beside this one, to be filled and given its name, or removed where it has not got it."""
    draft = directory.with_name(f".{secrets.token_hex(8)}")
    try:
        draft.mkdir()
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def expanded(text: str) -> Path:
    """The path of that name, a leading ~ read as a home, where there is one of that name."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def given_path(path: str | os.PathLike[str], name: str) -> Path:
    """The path that a caller passes as an argument of that name. Raises InputError for what cannot be one."""
    try:
        text = os.fsdecode(path)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is {quoted(path)}; expected a path") from error
    if "\0" in text:
        raise InputError(f"{name} is {quoted(path)}, which cannot be a path")
    return Path(text)
