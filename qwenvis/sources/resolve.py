"""A source, as a caller names it, becomes a checkpoint: its path, and the reader that opens it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from qwenvis import models
from qwenvis.checkpoints.checkpoint import Checkpoint
from qwenvis.checkpoints.files import expanded, regular_file
from qwenvis.checkpoints.packed import open_packed
from qwenvis.errors import CheckpointError, InputError, SourceError, quoted
from qwenvis.io.files import reason
from qwenvis.sources import hub
from qwenvis.sources.hub import _NAME, _REPO, GGUF, SYNTHETIC, _exists, _is_directory, _snapshot

_REPO_FILE = re.compile(f"({_NAME}/{_NAME})/((?:{_NAME}/)*{_NAME})", re.ASCII)


def resolve(
    source: str | os.PathLike[str],
    cache_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """The path of the checkpoint that ``source`` names.

    That is the directory of a directory, of ``synthetic:PRESET`` or of a Hub id, ORG/NAME; and the file of a GGUF file
    or of one in a Hub repo, ORG/NAME/FILE.gguf.

    ``cache_dir`` stands in for the Hugging Face cache (or the cache of synthetic checkpoints), ``revision`` is a
    branch, tag or commit of a Hub id (default main), and ``progress(bytes_done, bytes_total)`` follows the writing
    of a synthetic checkpoint. Raises `SourceError` where nothing is here; for a Hub id the message holds the
    ``hf download`` line that fetches the files of the tower.
    """
    text = os.fspath(source) if isinstance(source, (str, os.PathLike)) else source
    if not isinstance(text, str) or not text:
        got = "empty" if isinstance(text, str) else f"a {type(text).__name__}"
        raise InputError(f"source is {got}; expected a directory, a {GGUF} file, a Hub id or {SYNTHETIC}PRESET")
    if text.startswith(SYNTHETIC):
        from qwenvis.sources.synthetic import materialise

        return materialise(text.removeprefix(SYNTHETIC), cache_dir, progress)
    path = expanded(text)
    if _is_directory(path) or (path.suffix.lower() == GGUF and _exists(path)):
        return path
    if "--" not in text and ".." not in text:
        if (match := _REPO_FILE.fullmatch(text)) and path.suffix.lower() == GGUF:
            snapshot = _snapshot(match[1], cache_dir, revision, match[2])
            return regular_file(snapshot, match[2]) or snapshot
        if _REPO.fullmatch(text) and path.suffix.lower() != GGUF:
            return _snapshot(text, cache_dir, revision)
    raise SourceError(_nothing(text, path))


def _nothing(text: str, path: Path) -> str:
    """Why a source names nothing that is here."""
    if "://" in text:
        return f"{quoted(text)} names no checkpoint: it is a URL, and nothing is downloaded; a Hub id is ORG/NAME"
    try:
        path.stat()
        place = "is a file; name the directory that holds it"
    except FileNotFoundError:
        place = "is no file" if path.suffix.lower() == GGUF else "is no directory"
    except (OSError, ValueError) as error:
        place = f"cannot be read: {reason(error)}"
    from qwenvis.sources.presets import suggestion

    where = quoted(str(path.absolute()))
    return f"{quoted(text)} names no checkpoint: {where} {place}; a Hub id is ORG/NAME; {suggestion(text)}"


def _preset(source: str | os.PathLike[str]) -> str | None:
    """The preset that a source names, None where it is another kind of source."""
    text: object = os.fspath(source) if isinstance(source, str | os.PathLike) else ""
    named = isinstance(text, str) and text.startswith(hub.SYNTHETIC)
    return str(text).removeprefix(hub.SYNTHETIC) if named else None


def _open(path: Path) -> Checkpoint:
    """The checkpoint at a path, by the layout that it has."""
    if path.suffix.lower() != hub.GGUF or path.is_dir():
        return open_packed(path, models.named) or Checkpoint.open(path, models.named)
    try:
        from qwenvis.checkpoints import mmproj
    except ImportError as error:
        raise CheckpointError(
            f"{path} is read with the gguf package, which is not installed: pip install 'qwenvis[gguf]' ({error})"
        ) from error
    return mmproj.open_mmproj(path)
