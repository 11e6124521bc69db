"""The local cache of the Hugging Face Hub: the snapshot that a Hub id names. Nothing is ever downloaded.

The cache is read by its layout: ``models--ORG--NAME/refs/REVISION`` holds a commit, and
``models--ORG--NAME/snapshots/COMMIT`` its files.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from qwenvis.checkpoints.configs import CONFIG, FILES, PROCESSOR
from qwenvis.checkpoints.files import regular_file
from qwenvis.checkpoints.shards import INDEX, SINGLE, tower_shards
from qwenvis.errors import CheckpointError, SourceError, quoted, shown
from qwenvis.io.files import expanded, given_path, open_regular, reason

GGUF = ".gguf"

# The Hub's own rule for ORG/NAME, without the old names that have no owner.
_NAME = r"[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?"
_ID = re.compile(f"({_NAME}/{_NAME})(?:/((?:{_NAME}/)*{_NAME}))?", re.ASCII)
_REVISION = re.compile(r"\w[\w.+/-]{0,200}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubName:
    """A repo of the Hub, ORG/NAME, or one GGUF file in it, at a revision, in a cache."""

    repo: str
    file: str
    revision: str | None
    cache_dir: str | os.PathLike[str] | None

    @classmethod
    def of(cls, text: str, revision: str | None, cache_dir: str | os.PathLike[str] | None) -> Self | None:
        """Parse a Hub id; return None for any other text. Raises SourceError for an invalid revision."""
        match = _ID.fullmatch(text)
        if match is None or "--" in text or ".." in text or bool(match[2]) != text.lower().endswith(GGUF):
            return None
        if revision is not None and (
            not isinstance(revision, str) or not _REVISION.fullmatch(revision) or ".." in revision
        ):
            raise SourceError(
                f"{quoted(revision)} is not a revision of {match[1]}; expected a branch, a tag or a commit"
            )
        return cls(match[1], match[2] or "", revision, cache_dir)

    @property
    def cache(self) -> Path:
        """The directory of the cache."""
        return hub_cache() if self.cache_dir is None else given_path(self.cache_dir, "cache_dir")

    def snapshot(self) -> Path:
        """Find the directory of the revision. Raises SourceError if the cache has none."""
        folder = self.cache / f"models--{self.repo.replace('/', '--')}"
        snapshot = _commit(folder, self.revision or "main")
        if snapshot is None:
            raise self.refusal(f"holds no snapshot of its revision {self.revision or 'main'}")
        return snapshot

    def path_in(self, snapshot: Path) -> Path:
        """Return the path of the checkpoint: the snapshot, or the file in it, which may be missing.

        Raises CheckpointError for a link that leads out of the snapshot.
        """
        if self.file:
            regular_file(snapshot, self.file)
        return snapshot / self.file

    def pinned(self, snapshot: Path) -> dict[str, Any]:
        """Return the arguments with which `qwenvis.sources.open` opens this commit from any directory."""
        cache = None if self.cache_dir is None else str(given_path(self.cache_dir, "cache_dir").absolute())
        source = f"{self.repo}/{self.file}" if self.file else self.repo
        return {"source": source, "cache_dir": cache, "revision": snapshot.name}

    def missing_from(self, snapshot: Path) -> list[str]:
        """Name the files that the tower needs and the snapshot lacks."""
        needed = [self.file] if self.file else [CONFIG, *(_shards(snapshot) or [INDEX])]
        return [name for name in needed if not exists(snapshot / name)]

    def refusal(self, state: str, snapshot: Path | None = None) -> SourceError:
        """Return the error for a cache in this ``state``, with the command that fetches the missing files."""
        kind, source = ("file", f"{self.repo}/{self.file}") if self.file else ("directory", self.repo)
        options = {"--revision": self.revision, "--cache-dir": self.cache_dir}
        places = "".join(f' {option} "{value}"' for option, value in options.items() if value is not None)
        text = f"{source} is not a {kind} here, and the Hugging Face cache {self.cache} {state}."
        if self.file:
            return SourceError(f"{text}\nTo fetch it:\n  hf download {self.repo} {self.file}{places}")
        shards = [] if snapshot is None else _shards(snapshot)
        return SourceError(f"{text}\n{_fetch(self.repo, shards, places)}")


def hub_cache() -> Path:
    """Return the cache of huggingface_hub: ``HF_HUB_CACHE``, else ``HF_HOME/hub``, else a path below ``~/.cache``."""
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return expanded(os.path.expandvars(cache))


def _commit(folder: Path, revision: str) -> Path | None:
    """Find the snapshot of a branch, tag or commit; None if it is not in the cache."""
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
    return snapshots / commit if _COMMIT.fullmatch(commit) and is_directory(snapshots / commit) else None


def _shards(snapshot: Path) -> list[str]:
    """Name the files that hold the tower, or an unusable index; none for a snapshot without both."""
    present = [name for name in (SINGLE, INDEX) if (snapshot / name).exists()]
    try:
        return tower_shards(snapshot) if present else []
    except CheckpointError:
        return present


def _fetch(repo: str, shards: list[str], places: str) -> str:
    """Return the command that fetches the tower: its ``shards``, or every shard while they are unknown."""
    patterns = [CONFIG, *FILES, PROCESSOR, INDEX, *(shards or ["*.safetensors"])]
    included = " ".join(f'--include "{pattern}"' for pattern in patterns)
    why = "" if shards else f" (and every shard, because {INDEX}, which lists the shards of the tower, is not here yet)"
    return f"To fetch the files that hold the tower{why}:\n  hf download {repo} {included}{places}"


def is_directory(path: Path) -> bool:
    """Return whether a path is a directory; False for a path that no file can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a text that is too long for a path, or has a NUL
        return False


def exists(path: Path) -> bool:
    """Return whether a path exists; False for a path that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
