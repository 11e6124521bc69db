"""The directory of a checkpoint: its files, and the JSON objects in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from qwenvis.errors import CheckpointError, shown
from qwenvis.io.files import open_regular, reason

# The largest published configs have some 300 kB, with the names of all modules that are not quantised. Python makes 25
# bytes of each byte of JSON that is all brackets.
MAX_JSON_BYTES = 2_000_000


def read_json(
    directory: Path, name: str, error: type[CheckpointError], most: int = MAX_JSON_BYTES, entries: int = MAX_JSON_BYTES
) -> dict[str, Any] | None:
    """Read the object in a JSON file; None where there is no such file.

    Raises ``error`` for JSON that is no object and, before it is parsed, for a file of more than ``most`` bytes or more
    than ``entries`` entries.
    """
    path = regular_file(directory, name)
    if path is None:
        return None
    try:
        with open_regular(path) as file:
            text = file.read(most + 1) or b""  # None for a file of /proc that has nothing to tell yet
        if len(text) > most:
            raise ValueError(f"it has more than {most:,} bytes, the limit")
        return json_object(text, entries)
    except (OSError, ValueError, RecursionError) as cause:
        raise error(f"{path} cannot be read as JSON: {cause}") from cause


def json_object(text: bytes, entries: int) -> dict[str, Any]:
    """Parse an object of JSON in UTF-8. Raises ValueError or RecursionError; counts of entries are checked first."""
    if text.count(b",") >= entries or text.count(b"[") >= entries or text.count(b"{") >= entries:
        raise ValueError(f"it has more than {entries:,} entries, the limit")
    content = json.loads(str(text, "utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"it holds a JSON {type(content).__name__}; expected an object")
    return content


def regular_file(directory: Path, name: str) -> Path | None:
    """Find the file of that name; None where there is none.

    Raises CheckpointError for a file that may not be read or is no regular file, and for a link that leads nowhere or
    out of the checkpoint.
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


@dataclass(frozen=True)
class Files:
    """How the files of a checkpoint that hold weights are found and opened: here, or elsewhere by byte ranges.

    - ``find(directory, name)``: the path of a file, None where there is none; raises `CheckpointError`.
    - ``open(path)``: opens that file, and raises OSError or ValueError where that fails.
    """

    find: Callable[[Path, str], Path | None]
    open: Callable[[Path], BufferedReader]


LOCAL = Files(regular_file, open_regular)
