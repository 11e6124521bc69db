"""The file of one item: a file of `Embeddings.save` with a checksum of the key and of everything in it."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from qwenvis.embeddings import Embeddings
from qwenvis.embeddings.file import load
from qwenvis.errors import InputError
from qwenvis.io.drafts import draft_of, flush

CHECKSUM = "cache_checksum"  # in the metadata, beside the provenance
PAGE = 512  # words of 8 bytes to a row of the table that is summed: damage on a disk is one bit, or pages of 4 kB


def read(path: Path, key: str) -> Embeddings | None:
    """Return the item of a file, or None if its content is not exactly what `write` wrote under this key."""
    try:
        stored = Embeddings(**load(path, finite=False))  # `write` refuses NaN, and the checksum tells what it wrote
    except InputError:
        return None
    provenance = dict(stored.provenance)
    found = provenance.pop(CHECKSUM, None)
    item = stored._with(provenance=provenance)
    return item if found == checksum(key, item) else None


def write(path: Path, key: str, item: Embeddings) -> int:
    """Write the file of an item, which gets its name once it is on the disk; return its size in bytes.

    Hidden states and errors are not written. The directory is created if somebody has removed it. Raises InputError or
    OSError if the file cannot be written.
    """
    provenance = {**item.provenance, CHECKSUM: checksum(key, item)}
    # The draft is a directory, because safetensors makes a temporary file of its own beside the file.
    with draft_of(path) as draft:
        draft.mkdir(parents=True)
        written = draft / path.name
        item._with(provenance=provenance).save(written)
        flush(written)
        size = written.stat().st_size
        written.replace(path)
    return size


def checksum(key: str, item: Embeddings) -> str:
    """Return a checksum of a key and of all that is stored of an item. It finds damage, not forgery.

    Damage that is confined to one page of an array, or to one word of each page, is always found. SHA-256 of the arrays
    would take as long as the preprocessing of an image; these sums run at the speed of memory.
    """
    arrays = [item.embeddings, *item.deepstack, item.grid_thw, item.sizes]
    arrays += [*item.frame_indices, *item.timestamps, item.second_per_grid_ts]
    told: list[object] = [key, item.merge_size, item.sources, sorted(item.provenance.items())]
    told += [(array.dtype.name, array.shape) for array in arrays]
    with suppress(InputError):  # the item was made by hand, without a key
        told += item.keys
    digest = hashlib.sha256(repr(told).encode())
    for array in arrays:
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        pages = data[: len(data) // (8 * PAGE) * (8 * PAGE)].view("<u8").reshape(-1, PAGE)
        for part in (pages.sum(axis=0), pages.sum(axis=1), data[pages.nbytes :]):
            digest.update(part.data)
    return digest.hexdigest()
