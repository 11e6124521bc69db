"""Open a source: find the path that it names, and the reader for the layout of the checkpoint there."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from qwenvis import models
from qwenvis.checkpoints.checkpoint import Checkpoint
from qwenvis.checkpoints.configs import read_configs
from qwenvis.checkpoints.files import LOCAL, Files
from qwenvis.checkpoints.packed import open_packed, packed_file
from qwenvis.checkpoints.shards import open_shards, read_header
from qwenvis.errors import CheckpointError, ConfigError, InputError, SourceError, quoted
from qwenvis.io.files import expanded, given_path, reason
from qwenvis.sources.hub import GGUF, INSTALL, HubName, HubOptions, check_endpoint, exists, is_directory

SYNTHETIC = "synthetic:"


def open(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    tower_only: bool = False,
) -> Checkpoint:
    """Open the checkpoint that ``source`` names: its configs and headers are read, and no weight.

    ``source`` is a directory in the Hub's layout or of ``qwenvis pack``, a GGUF file of llama.cpp,
    ``synthetic:PRESET``, or a Hub id: ORG/NAME, or ORG/NAME/FILE.gguf. What the local Hugging Face cache holds of an id
    is used without any request. Of another id the configs and the index are downloaded into that cache, and the headers
    of weights are read by byte ranges; `Checkpoint.prepare` then downloads the files that hold the tower.

    - ``revision``: a branch, tag or commit of a Hub id (default main).
    - ``cache_dir``: replaces the Hugging Face cache, or the cache of synthetic checkpoints.
    - ``token``: of a private or gated repo; by default the one of huggingface_hub (``HF_TOKEN``, or that of ``hf auth
      login``), and none with False. It is sent to the Hub's host only.
    - ``local_files_only``: send no request, as with ``HF_HUB_OFFLINE=1``.
    - ``tower_only``: download the tower's byte ranges instead of whole shards, into the cache of qwenvis.

    Raises InputError for an invalid argument, SourceError for a source that is not found or cannot be downloaded,
    ConfigError for a config that cannot be used, and CheckpointError for weights that are missing,
    damaged, quantised or without a tower.
    """
    text = os.fspath(source) if isinstance(source, str | os.PathLike) else source
    if not isinstance(text, str) or not text:
        got = "empty" if isinstance(text, str) else f"a {type(text).__name__}"
        raise InputError(f"source is {got}; expected a directory, a {GGUF} file, a Hub id or {SYNTHETIC}PRESET")
    options = HubOptions(
        revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only, tower_only=tower_only
    )
    if text.startswith(SYNTHETIC):
        return _synthetic(text, cache_dir)
    path = expanded(text)
    if is_directory(path) or (_is_gguf(path) and exists(path)):
        return replace(open_at(path), source={"source": str(path.absolute())})
    if name := HubName.of(text, options):
        return _in_hub(name)
    raise SourceError(_nothing(text, path))


def open_at(path: Path, files: Files = LOCAL) -> Checkpoint:
    """Open the checkpoint at a path, by its layout; ``files`` finds and opens the files that hold weights.

    Raises SourceError, ConfigError or CheckpointError.
    """
    if _is_gguf(path) and not path.is_dir():
        return _gguf(path, files)
    configs = read_configs(path)
    models.named(configs["model_type"], configs["vision_config"])  # refuse an unknown family before looking for a tower
    if (file := packed_file(path)) is not None:
        return open_packed(read_header(file), configs)
    return open_shards(path, configs, files)


def _gguf(path: Path, files: Files) -> Checkpoint:
    try:
        from qwenvis.checkpoints import gguf, mmproj
    except ImportError as error:
        raise CheckpointError(
            f"{path} is read with the gguf package, which is not installed: pip install 'qwenvis[gguf]' ({error})"
        ) from error
    return mmproj.open_mmproj(gguf.read_header(path, files.open))


def _synthetic(text: str, cache_dir: str | os.PathLike[str] | None) -> Checkpoint:
    from qwenvis.sources.synthetic import open_synthetic

    cache = None if cache_dir is None else str(given_path(cache_dir, "cache_dir").absolute())
    found = open_synthetic(text.removeprefix(SYNTHETIC), cache_dir)
    return replace(found, source={"source": text, "cache_dir": cache})


def _in_hub(name: HubName) -> Checkpoint:
    """Open a checkpoint of the Hub: in the caches, else by requests, unless they are forbidden."""
    commit, snapshot = name.commit(), name.snapshot()
    state, cause = f"holds no snapshot of its revision {name.revision}", None
    if snapshot is not None:
        try:
            return replace(open_at(name.path_in(snapshot)), source=name.pinned(commit))
        except ConfigError:
            raise
        except (SourceError, CheckpointError) as error:
            if not (missing := name.missing_from(snapshot)):
                raise
            state, cause = f"lacks its {', '.join(missing)}", error
    if commit and not name.file and is_directory(extracted := name.extracted(commit)):
        return replace(open_at(extracted), source=name.pinned(commit))
    if name.options.forbidden:
        raise name.refusal(state, snapshot) from cause
    check_endpoint()
    try:
        from qwenvis.sources.remote import open_remote
    except ImportError as error:
        text = f"{name.refusal(state, snapshot)}\nqwenvis downloads it itself after {INSTALL} ({error})"
        raise SourceError(text) from cause
    return open_remote(name, commit, open_at)


def _is_gguf(path: Path) -> bool:
    return path.suffix.lower() == GGUF


def _nothing(text: str, path: Path) -> str:
    """Return the message for a source that is not found."""
    if "://" in text:
        return f"{quoted(text)} names no checkpoint: it is a URL, and URLs are not downloaded; a Hub id is ORG/NAME"
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
