"""Open a source: find the path that it names, and the reader for the layout of the checkpoint there."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from qwenvis import models
from qwenvis.checkpoints.checkpoint import Checkpoint
from qwenvis.checkpoints.configs import read_configs
from qwenvis.checkpoints.packed import open_packed, packed_file
from qwenvis.checkpoints.shards import open_shards, read_header
from qwenvis.errors import CheckpointError, ConfigError, InputError, SourceError, quoted
from qwenvis.io.files import expanded, given_path, reason
from qwenvis.sources.hub import GGUF, HubName, exists, is_directory

SYNTHETIC = "synthetic:"


def open(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Checkpoint:
    """Open the checkpoint that ``source`` names: its configs and headers are read, no weight, and nothing is written.

    ``source`` is a directory in the Hub's layout or of ``qwenvis pack``, a GGUF file of llama.cpp,
    ``synthetic:PRESET``, or a Hub id that is in the local cache: ORG/NAME, or ORG/NAME/FILE.gguf. ``revision`` is a
    branch, tag or commit of a Hub id (default main), ``cache_dir`` replaces the Hugging Face cache, or the cache of
    synthetic checkpoints.

    Raises InputError for an invalid argument, SourceError for a source that is not found (for a Hub id, with the ``hf
    download`` command that fetches the files of the tower), ConfigError for a config that cannot be used, and
    CheckpointError for weights that are missing, damaged, quantised or without a tower.
    """
    text = os.fspath(source) if isinstance(source, str | os.PathLike) else source
    if not isinstance(text, str) or not text:
        got = "empty" if isinstance(text, str) else f"a {type(text).__name__}"
        raise InputError(f"source is {got}; expected a directory, a {GGUF} file, a Hub id or {SYNTHETIC}PRESET")
    if text.startswith(SYNTHETIC):
        from qwenvis.sources.synthetic import open_synthetic

        named = {
            "source": text,
            "cache_dir": None if cache_dir is None else str(given_path(cache_dir, "cache_dir").absolute()),
        }
        return replace(open_synthetic(text.removeprefix(SYNTHETIC), cache_dir), source=named)
    path = expanded(text)
    if is_directory(path) or (_is_gguf(path) and exists(path)):
        return replace(_at(path), source={"source": str(path.absolute())})
    if name := HubName.of(text, revision, cache_dir):
        return _in_hub(name)
    raise SourceError(_nothing(text, path))


def _at(path: Path) -> Checkpoint:
    """Open the checkpoint at a path, by the layout that it has."""
    if _is_gguf(path) and not path.is_dir():
        return _gguf(path)
    configs = read_configs(path)
    models.named(configs["model_type"], configs["vision_config"])  # refuse an unknown family before looking for a tower
    if (file := packed_file(path)) is not None:
        return open_packed(read_header(file), configs)
    return open_shards(path, configs)


def _gguf(path: Path) -> Checkpoint:
    try:
        from qwenvis.checkpoints import gguf, mmproj
    except ImportError as error:
        raise CheckpointError(
            f"{path} is read with the gguf package, which is not installed: pip install 'qwenvis[gguf]' ({error})"
        ) from error
    return mmproj.open_mmproj(gguf.read_header(path))


def _in_hub(name: HubName) -> Checkpoint:
    """Open a checkpoint in the local cache of the Hub; the error for missing files says how to fetch them."""
    snapshot = name.snapshot()
    try:
        return replace(_at(name.path_in(snapshot)), source=name.pinned(snapshot))
    except ConfigError:
        raise
    except (SourceError, CheckpointError) as error:
        if missing := name.missing_from(snapshot):
            raise name.refusal(f"lacks its {', '.join(missing)}", snapshot) from error
        raise


def _is_gguf(path: Path) -> bool:
    return path.suffix.lower() == GGUF


def _nothing(text: str, path: Path) -> str:
    """Return the message for a source that is not found."""
    if "://" in text:
        return f"{quoted(text)} names no checkpoint: it is a URL, and nothing is downloaded; a Hub id is ORG/NAME"
    try:
        path.stat()
        place = "is a file; name the directory that holds it"
    except FileNotFoundError:
        place = "is not a file" if _is_gguf(path) else "is not a directory"
    except (OSError, ValueError) as error:
        place = f"cannot be read: {reason(error)}"
    from qwenvis.sources.presets import suggestion

    where = quoted(str(path.absolute()))
    return f"{quoted(text)} names no checkpoint: {where} {place}; a Hub id is ORG/NAME; {suggestion(text)}"
