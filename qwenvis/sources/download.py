"""The Hub's own client: it downloads files into its cache, and tells where the bytes of a file are.

Its errors become `SourceError` in words of ours, and are not chained: their texts may hold signed URLs, or what a
server has sent.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    FileMetadataError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, tqdm

from qwenvis.errors import SourceError, shown
from qwenvis.io.drafts import whole_file
from qwenvis.sources.hub import HubName
from qwenvis.sources.ranges import Location
from qwenvis.version import __version__

_WHO: dict[str, Any] = {"library_name": "qwenvis", "library_version": __version__}
_REFUSED = "is private, gated or not there: accept its terms on its page, and pass token= or set HF_TOKEN"


@dataclass(frozen=True)
class Client:
    """The files of a repo at one revision: a branch, a tag, or best a commit."""

    name: HubName
    revision: str

    @property
    def endpoint(self) -> str:
        """The address of the Hub, which ``HF_ENDPOINT`` replaces."""
        return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")

    def download(self, file: str, advance: Callable[[int], object] = lambda count: None) -> Path:
        """Download a file into the Hugging Face cache, unless it is there; return its path there.

        ``advance`` is told of the bytes as they come. Raises SourceError.
        """

        class Silent(tqdm):
            """The client's progress bar, without a bar."""

            def __init__(self, *_: object, **__: object) -> None:
                super().__init__(disable=True)  # type: ignore[no-untyped-call]

            def update(self, n: float | None = 1) -> bool | None:
                advance(int(n or 0))
                return None

        with self._told():
            path = hf_hub_download(
                self.name.repo,
                file,
                revision=self.revision,
                cache_dir=self.name.options.cache,
                token=self.name.options.token,
                endpoint=self.endpoint,
                tqdm_class=Silent,
                **_WHO,
            )
        return Path(path)

    def note(self) -> None:
        """Write into the cache that the branch or tag stands for this commit, where nothing there says so yet."""
        ref = self.name.folder / "refs" / self.name.revision
        if not self.name.commit():
            ref.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(ref) as draft:
                draft.write_text(self.revision)

    def located(self, file: str) -> Location:
        """Find where a file is. Raises SourceError, and FileNotFoundError where the repo has no such file."""
        options = self.name.options
        url = hf_hub_url(self.name.repo, file, revision=self.revision, endpoint=self.endpoint)
        with self._told():
            headers = build_hf_headers(token=options.token, **_WHO)
            found = get_hf_file_metadata(
                url, headers=headers, endpoint=self.endpoint, retry_on_errors=True, token=False
            )
        if found.size is None or found.etag is None:
            raise SourceError(f"{self.host} does not tell size and ETag of {file} of {self.name.repo}")
        if _origin(found.location) != _origin(url):
            headers.pop("authorization", None)
        return Location(found.location, found.size, found.etag, headers, found.commit_hash or "")

    @property
    def host(self) -> str:
        """The name of the Hub in messages: its host and port."""
        return shown(urlsplit(self.endpoint).netloc.rpartition("@")[2])

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn errors of the client into SourceErrors that have no text of a server."""
        try:
            yield
        except RemoteEntryNotFoundError:
            raise FileNotFoundError(f"{self.name.repo} has no such file at {self.revision}") from None
        except (OSError, ValueError, ImportError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise SourceError(
                f"{self.name.source} is not here and cannot be downloaded: {self._reason(error)}"
            ) from None

    def _reason(self, error: BaseException | None) -> str:
        """Say in a clause what went wrong."""
        host, repo = self.host, self.name.repo
        match error:
            case LocalEntryNotFoundError():
                return self._reason(error.__cause__)
            case RevisionNotFoundError():
                return f"{repo} has no revision {self.revision} on {host}"
            case RepositoryNotFoundError():
                return f"on {host}, {repo} {_REFUSED}"
            case HfHubHTTPError() if error.response.status_code in (401, 403):
                return f"on {host}, {repo} {_REFUSED}"
            case HfHubHTTPError():
                return f"{host} answers {error.response.status_code}"
            case OfflineModeIsEnabled():
                return "HF_HUB_OFFLINE was set when huggingface_hub was imported"
            case LocalTokenNotFoundError():
                return "token is True, and no token is stored: hf auth login"
            case FileMetadataError():
                return f"{host} answers, but not as a Hub does: without a commit or an ETag"
            case ImportError():  # of a proxy's protocol, which the variables name
                return str(error)
            case OSError() if error.strerror:
                return error.strerror
            case _:
                return f"the transfer from {host} failed ({type(error).__name__})"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port
