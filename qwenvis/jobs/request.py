"""The arguments of a job that need no encoder, checked before one is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import SupportsIndex

from qwenvis.io.files import expanded, given_path
from qwenvis.jobs.folder import Folder
from qwenvis.jobs.inputs.listing import Listing
from qwenvis.jobs.roster import Share
from qwenvis.jobs.settings import SHARD_SIZE, Output


@dataclass(frozen=True)
class Request:
    """What `run` is asked for: the inputs, the directory, the share of this process, and how tokens are stored."""

    listing: Listing
    folder: Folder
    share: Share
    output: Output
    retry_failed: bool

    @classmethod
    def of(
        cls,
        inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        directory: str | os.PathLike[str],
        *,
        include: Iterable[str] = (),
        column: str | None = None,
        to: str = "safetensors",
        dtype: object = "float32",
        shard_size: SupportsIndex = SHARD_SIZE,
        share: tuple[int, int] = (0, 1),
        retry_failed: bool = False,
    ) -> Request:
        """Check the arguments of `run`. Raises InputError."""
        output, mine = Output.checked(to, dtype, shard_size), Share.checked(*share)
        folder = Folder(expanded(str(given_path(directory, "directory"))), mine)
        given = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
        listing = Listing(list(map(os.fsdecode, given)), tuple(include), column, folder.directory.resolve())
        listing.refuse_missing()
        folder.refuse_other_files()
        return cls(listing, folder, mine, output, retry_failed)
