"""A tensor in a file: its type, its shape, and the range of bytes that holds it.

Each container format (safetensors, GGUF) lists its tensors as a `Header`, and their bytes are read here. So another
source of bytes, such as byte ranges over HTTP, needs one function only: `OpenFile`. Nothing is mapped: a file that is
cut short while it is read is an error and never a SIGBUS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from qwenvis.errors import CheckpointError, shown
from qwenvis.io.files import open_regular, reason

# Opens the file at a path, and raises OSError or ValueError where there is none. Only the header of a file and the
# ranges of the tower's tensors are read from it, each range by one `readinto`.
OpenFile = Callable[[Path], BufferedReader]


@dataclass(frozen=True)
class StoredFile:
    """A file whose header has been read: its path, the length of the header in bytes, and the header's SHA-256."""

    path: Path
    header_nbytes: int
    digest: bytes

    @classmethod
    def of(cls, path: Path, header: bytes) -> StoredFile:
        """Return the file at ``path`` that begins with ``header``."""
        return cls(path, len(header), hashlib.sha256(header).digest())

    @contextmanager
    def opened(self, open_file: OpenFile = open_regular) -> Iterator[BufferedReader]:
        """Open the file. Raises CheckpointError where that fails, or where the file has another header by now."""
        try:
            file = open_file(self.path)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.path} cannot be read: {reason(error)}") from error
        with file:
            try:
                found = StoredFile.of(self.path, file.read(self.header_nbytes))
            except OSError as error:
                raise CheckpointError(f"{self.path} cannot be read: {reason(error)}") from error
            if found != self:
                raise CheckpointError(f"{self.path} has a different header now: the file was replaced while in use")
            yield file


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as its file's header lists it: ``nbytes`` bytes from ``offset`` on, counted from the file's first byte.

    ``dtype`` is the word of the file's format: safetensors' (``BF16``) or ggml's (``Q8_0``).
    """

    name: str
    file: StoredFile
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Header:
    """The content of a file's header: metadata, and the tensors by name, in the order of their bytes."""

    file: StoredFile
    metadata: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]


class StoredType(NamedTuple):
    """A type of stored tensors that can be read: the blocks in the file, and how they become an array of ``dtype``."""

    block: np.dtype[Any]
    dtype: np.dtype[Any]
    decode: Callable[[np.ndarray], np.ndarray] = np.asarray


def _dequantize_q8_0(blocks: np.ndarray) -> np.ndarray:
    """Multiply each int8 by the float16 scale of its block, in float32, as dequantize_row_q8_0 of ggml."""
    out = np.empty((len(blocks), 32), np.float32)
    with np.errstate(invalid="ignore"):  # 0 times an infinite scale is NaN, which is refused with its name
        np.multiply(blocks["entries"], blocks["scale"].astype(np.float32)[:, None], out=out, casting="unsafe")
    return out


# The types that a checkpoint in the Hub's layout may have; others are those of quantised towers.
FLOATS = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(ml_dtypes.bfloat16)}
_Q8_0 = np.dtype([("scale", "<f2"), ("entries", "i1", (32,))])
TYPES = {
    **{name: StoredType(dtype, dtype) for name, dtype in FLOATS.items()},
    "Q8_0": StoredType(_Q8_0, FLOATS["F32"], _dequantize_q8_0),
}

Read = Callable[[StoredTensor], np.ndarray]


@contextmanager
def reader(stored: StoredFile, open_file: OpenFile = open_regular) -> Iterator[Read]:
    """Open a file, and yield the function that reads its tensors; both raise CheckpointError where that fails."""
    with stored.opened(open_file) as file:
        yield partial(_read, file)


def _read(file: BufferedReader, stored: StoredTensor) -> np.ndarray:
    kind = TYPES[stored.dtype]
    try:
        blocks = np.empty(stored.nbytes // kind.block.itemsize, kind.block)
        file.seek(stored.offset)
        count = file.readinto(blocks.view(np.uint8).data)
        if count < stored.nbytes:
            raise ValueError(f"the file ends after {count} of its {stored.nbytes} bytes")
        return kind.decode(blocks).reshape(stored.shape)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{stored.file.path}: {shown(stored.name)} cannot be read: {shown(str(error))}"
        ) from error
