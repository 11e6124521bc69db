"""What people type as a source -> the directory, or file, of a checkpoint that is here. Nothing is ever downloaded.

The local Hugging Face cache is read by its layout: ``models--ORG--NAME/refs/REVISION`` holds a commit, and
``models--ORG--NAME/snapshots/COMMIT`` its files.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from qwenvis.checkpoints.checkpoint import CONFIG, FILES, PROCESSOR
from qwenvis.checkpoints.files import expanded, given_path, regular_file
from qwenvis.checkpoints.shards import INDEX, SINGLE, tower_shards
from qwenvis.errors import CheckpointError, SourceError, quoted, shown
from qwenvis.io.files import open_regular, reason

SYNTHETIC = "synthetic:"
GGUF = ".gguf"

# The Hub's own rule for ORG/NAME, without the old names that have no owner.
_NAME = r"[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?"
_REPO = re.compile(f"{_NAME}/{_NAME}", re.ASCII)
_REVISION = re.compile(r"\w[\w.+/-]{0,200}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def found_again(source: str | os.PathLike[str], path: Path, cache_dir: str | os.PathLike[str] | None) -> dict[str, Any]:
    """The arguments of `resolve` that find ``path``, which it found for ``source``, from any directory.

    Of a Hub id the revision is the commit that was found.
    """
    text = os.fspath(source)
    cache = None if cache_dir is None else str(Path(cache_dir).absolute())
    if text.startswith(SYNTHETIC):
        return {"source": text, "cache_dir": cache}
    if expanded(text) == path:
        return {"source": str(path.absolute())}
    commit = next(folder.name for folder in (path, *path.parents) if folder.parent.name == "snapshots")
    return {"source": text, "cache_dir": cache, "revision": commit}


def hub_cache() -> Path:
    """Where huggingface_hub keeps its cache: ``HF_HUB_CACHE``, else ``HF_HOME/hub``, else below ``~/.cache``."""
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return expanded(os.path.expandvars(cache))


def _snapshot(
    repo: str, cache_dir: str | os.PathLike[str] | None, revision: str | None, file: str | None = None
) -> Path:
    """The snapshot of a Hub id that has the file, or its config and every shard of its tower."""
    if revision is not None and (
        not isinstance(revision, str) or not _REVISION.fullmatch(revision) or ".." in revision
    ):
        raise SourceError(f"{quoted(revision)} is no revision of {repo}; expected a branch, a tag or a commit")
    cache = hub_cache() if cache_dir is None else given_path(cache_dir, "cache_dir")
    snapshot = _commit(cache / f"models--{repo.replace('/', '--')}", revision or "main")
    shards = [] if snapshot is None or file else _shards(snapshot)
    state = f"holds no snapshot of its revision {revision or 'main'}"
    if snapshot is not None:
        needed = [file] if file else [CONFIG, *(shards or [INDEX])]
        absent = [name for name in needed if not _exists(snapshot / name) or regular_file(snapshot, name) is None]
        if not absent:
            return snapshot
        state = f"lacks its {', '.join(absent)}"
    options = {"--revision": revision, "--cache-dir": cache_dir}
    places = "".join(f' {option} "{value}"' for option, value in options.items() if value is not None)
    fetch = f"This fetches it:\n  hf download {repo} {file}{places}" if file else _fetch(repo, shards, places)
    named, kind = (f"{repo}/{file}", "file") if file else (repo, "directory")
    raise SourceError(f"{named} is no {kind} here, and the Hugging Face cache {cache} {state}.\n{fetch}")


def _fetch(repo: str, shards: list[str], places: str) -> str:
    """The line that fetches the files of the tower; all shards where nothing here tells which of them hold it."""
    patterns = [CONFIG, *FILES, PROCESSOR, INDEX, *(shards or ["*.safetensors"])]
    included = " ".join(f'--include "{pattern}"' for pattern in patterns)
    why = "" if shards else f" (and every shard: only {INDEX}, which is not here yet, tells which of them hold it)"
    return f"This fetches the files that hold the tower{why}:\n  hf download {repo} {included}{places}"


def _commit(folder: Path, revision: str) -> Path | None:
    """The snapshot that a branch, tag or commit stands for, None where it is not in the cache."""
    snapshots = folder / "snapshots"
    if _COMMIT.fullmatch(revision):
        commit = revision
    else:
        ref = folder / "refs" / revision
        try:
            with open_regular(ref) as file:
                commit = (file.read(100) or b"").decode("ascii").strip()  # None: a file of /proc with nothing to tell
        except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
            return None
        except (OSError, ValueError) as error:
            raise SourceError(f"{shown(str(ref))}, which names a commit, cannot be read: {reason(error)}") from error
    return snapshots / commit if _COMMIT.fullmatch(commit) and _is_directory(snapshots / commit) else None


def _shards(snapshot: Path) -> list[str]:
    """The files that hold the tower, none where nothing here tells; where there is no tower, what tells that."""
    telling = [name for name in (SINGLE, INDEX) if (snapshot / name).exists()]
    try:
        return sorted(tower_shards(snapshot)[-1]) if telling else []
    except CheckpointError:
        return telling  # whoever opens them has the config too, and says what is there instead


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a text that is too long for a path, or has a NUL
        return False


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
