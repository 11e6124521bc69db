"""The ids of the Hugging Face Hub, and what its local cache holds of them. Nothing is downloaded here.

The cache is read by its layout: ``models--ORG--NAME/refs/REVISION`` holds a commit, and
``models--ORG--NAME/snapshots/COMMIT`` its files.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from qwenvis.checkpoints.configs import CONFIG, FILES, PROCESSOR
from qwenvis.checkpoints.files import regular_file
from qwenvis.checkpoints.shards import INDEX, SINGLE, tower_shards
from qwenvis.errors import CheckpointError, InputError, SourceError, quoted, shown
from qwenvis.io.files import given_path, open_regular, reason
from qwenvis.sources.caches import cache_root, hub_cache

GGUF = ".gguf"
INSTALL = "pip install 'qwenvis[hub]'"

# The Hub's own rule for ORG/NAME, without the old names that have no owner.
_NAME = r"[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?"
_ID = re.compile(f"({_NAME}/{_NAME})(?:/((?:{_NAME}/)*{_NAME}))?", re.ASCII)
_REVISION = re.compile(r"\w[\w.+/-]{0,200}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TOKEN = re.compile(r"[!-~]+")  # what may stand in a header
_TRUE = {"1", "ON", "YES", "TRUE"}  # as huggingface_hub reads its variables


@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """The arguments about a Hub id, which `qwenvis.sources.open` explains. Raises InputError for a wrong one."""

    revision: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    token: str | bool | None = field(default=None, repr=False)
    local_files_only: bool = False
    tower_only: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.token, str) and not _TOKEN.fullmatch(self.token):
            raise InputError("token is empty, or has a character that no token has")  # and is not quoted
        if not isinstance(self.token, str | bool | None):
            raise InputError(f"token is a {type(self.token).__name__}; expected a text, True, False or None")
        for name in ("local_files_only", "tower_only"):
            if not isinstance(value := getattr(self, name), bool):
                raise InputError(f"{name} is {quoted(value)}; expected True or False")

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a pickle, which has no token."""
        return {**self.__dict__, "token": None}

    @property
    def cache(self) -> Path:
        """The Hugging Face cache."""
        return hub_cache() if self.cache_dir is None else given_path(self.cache_dir, "cache_dir")

    @property
    def forbidden(self) -> str:
        """The reason why nothing may be downloaded; empty where the caller allows it."""
        if self.local_files_only:
            return "local_files_only is set"
        variables = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
        return next((f"{name} is set" for name in variables if os.environ.get(name, "").upper() in _TRUE), "")


@dataclass(frozen=True)
class HubName:
    """A repo of the Hub, ORG/NAME, or one GGUF file in it, with the arguments about it."""

    repo: str
    file: str
    options: HubOptions

    @classmethod
    def of(cls, text: str, options: HubOptions) -> Self | None:
        """Parse a Hub id; return None for any other text. Raises SourceError for an invalid revision."""
        match, revision = _ID.fullmatch(text), options.revision
        if match is None or "--" in text or ".." in text or bool(match[2]) != text.lower().endswith(GGUF):
            return None
        if revision is not None and (
            not isinstance(revision, str) or not _REVISION.fullmatch(revision) or ".." in revision
        ):
            raise SourceError(
                f"{quoted(revision)} is not a revision of {match[1]}; expected a branch, a tag or a commit"
            )
        return cls(match[1], match[2] or "", options)

    @property
    def source(self) -> str:
        """The id as a caller writes it."""
        return f"{self.repo}/{self.file}" if self.file else self.repo

    @property
    def revision(self) -> str:
        """The branch, tag or commit that the caller names, else the branch main."""
        return self.options.revision or "main"

    @property
    def folder(self) -> Path:
        """The directory of the repo in the Hugging Face cache."""
        return self.options.cache / f"models--{self.repo.replace('/', '--')}"

    def snapshot(self) -> Path | None:
        """Find the directory of the revision; None where the cache has none. Raises SourceError."""
        commit = self.commit()
        path = self.folder / "snapshots" / commit
        return path if commit and is_directory(path) else None

    def commit(self) -> str:
        """Find the commit that the revision stands for; empty where the cache does not tell. Raises SourceError."""
        return self.revision if is_commit(self.revision) else _read_ref(self.folder / "refs" / self.revision)

    def extracted(self, commit: str) -> Path:
        """The directory in the cache of qwenvis that holds the tower alone, once it has been downloaded."""
        return (cache_root() / "towers" / self.folder.name / commit).absolute()

    def path_in(self, snapshot: Path) -> Path:
        """Return the path of the checkpoint: the snapshot, or the file in it, which may be missing.

        Raises CheckpointError for a link that leads out of the snapshot.
        """
        if self.file:
            regular_file(snapshot, self.file)
        return snapshot / self.file

    def pinned(self, commit: str) -> dict[str, Any]:
        """Return the arguments with which `qwenvis.sources.open` opens this commit from any directory: no token."""
        cache_dir, flags = self.options.cache_dir, ("local_files_only", "tower_only")
        cache = None if cache_dir is None else str(given_path(cache_dir, "cache_dir").absolute())
        chosen = {name: True for name in flags if getattr(self.options, name)}
        return {"source": self.source, "cache_dir": cache, "revision": commit, **chosen}

    def missing_from(self, snapshot: Path) -> list[str]:
        """Name the files that the tower needs and the snapshot lacks."""
        needed = [self.file] if self.file else [CONFIG, *(_shards(snapshot) or [INDEX])]
        return [name for name in needed if not exists(snapshot / name)]

    def refusal(self, state: str, snapshot: Path | None = None) -> SourceError:
        """Return the error for a cache in this ``state``, with the command that fetches the missing files."""
        kind = "file" if self.file else "directory"
        options = {"--revision": self.options.revision, "--cache-dir": self.options.cache_dir}
        places = "".join(f' {option} "{value}"' for option, value in options.items() if value is not None)
        text = f"{self.source} is not a {kind} here, and the Hugging Face cache {self.options.cache} {state}."
        if reason := self.options.forbidden:
            text += f" Nothing is downloaded, because {reason}."
        if self.file:
            return SourceError(f"{text}\nTo fetch it:\n  hf download {self.repo} {self.file}{places}")
        shards = [] if snapshot is None else _shards(snapshot)
        return SourceError(f"{text}\n{_fetch(self.repo, shards, places)}")


def _read_ref(ref: Path) -> str:
    """Read the commit that a branch or tag stands for; empty where it is not in the cache."""
    try:
        with open_regular(ref) as file:
            commit = (file.read(100) or b"").decode("ascii").strip()  # None: a file of /proc with nothing to tell
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return ""
    except (OSError, ValueError) as error:
        raise SourceError(f"{shown(str(ref))}, which names a commit, cannot be read: {reason(error)}") from error
    return commit if is_commit(commit) else ""


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


def check_endpoint() -> None:
    """Raise SourceError for an ``HF_ENDPOINT`` that is no URL: huggingface_hub could not be imported.

    The value is not quoted, because it may hold a password.
    """
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        parts = urlsplit(endpoint or "")
        valid = endpoint is None or (parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0)
    except ValueError:
        valid = False
    if not valid:
        raise SourceError("HF_ENDPOINT is not the URL of a Hub, such as https://huggingface.co: correct it or unset it")


def is_commit(text: str) -> bool:
    """Whether a text is a commit in full, and no branch or tag."""
    return _COMMIT.fullmatch(text) is not None


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
