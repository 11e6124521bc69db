"""A GGUF file: its metadata and its tensors by name. The gguf package knows the format, this room reads the bytes.

The package maps the file and believes every length in it. Here it reads by pread and within bounds: a file that is cut
short while it is read is an error and never a SIGBUS, and an array that claims 2⁶⁰ entries ends with the file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.gguf_reader import GGUFReader, ReaderField

from qwenvis.checkpoints.tensors import Read
from qwenvis.errors import CheckpointError, shown
from qwenvis.io.files import open_regular, reason

# The header of an mmproj takes some 5,000 reads. A language model's has a vocabulary of 150,000 words, which the
# package would turn into as many arrays.
MOST_READS = 100_000
MOST_BYTES = 1 << 20  # of one name or text
MOST_IN_ALL = 1 << 24  # bytes of a header

# How the entries of a type lie on disk; the blocks of Q8_0 are 32 entries and their scale.
_Q8_0 = np.dtype([("scale", "<f2"), ("entries", "i1", (32,))])
_STORED = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(ml_dtypes.bfloat16), "Q8_0": _Q8_0}


@dataclass(frozen=True)
class Stored:
    """One tensor: ggml's word for its type, its shape in the order of NumPy, and where its bytes are."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Header:
    """What stands before the tensors: ``general.*`` and ``clip.*`` of the metadata, and the tensors by name."""

    metadata: dict[str, Any]
    tensors: dict[str, Stored]


def read_header(path: Path) -> Header:
    """Read the header of a file. Raises CheckpointError for what is no GGUF file, is damaged, or is cut short."""
    with _file(path) as file:
        return _header(path, file)


@contextmanager
def opened(path: Path) -> Iterator[Read]:
    """A file whose tensors can be read by name, Q8_0 as the float32 that it stands for."""
    with _file(path) as file:
        tensors = _header(path, file).tensors

        def read(name: str) -> np.ndarray:
            try:
                return _read(file, tensors[name])
            except (OSError, ValueError, KeyError) as error:
                raise CheckpointError(f"{path}: {shown(name)} cannot be read: {shown(str(error))}") from error

        yield read


def _read(file: BinaryIO, stored: Stored) -> np.ndarray:
    dtype = _STORED[stored.dtype]
    file.seek(stored.offset)
    entries = np.fromfile(file, dtype, stored.nbytes // dtype.itemsize)
    if entries.nbytes != stored.nbytes:
        raise ValueError(f"the file ends after {entries.nbytes} of its {stored.nbytes} bytes")
    if stored.dtype != "Q8_0":
        return entries.reshape(stored.shape)
    # As dequantize_row_q8_0 of ggml: the product of an int8 and a float16, in float32.
    out = np.empty((len(entries), 32), np.float32)
    with np.errstate(invalid="ignore"):  # 0 times an infinite scale is NaN, which is refused with its name
        np.multiply(entries["entries"], entries["scale"].astype(np.float32)[:, None], out=out, casting="unsafe")
    return out.reshape(stored.shape)


def _header(path: Path, file: BinaryIO) -> Header:
    try:
        reader = _Reader(path, file)
        fields = {name: field for name, field in reader.fields.items() if name.startswith(("general.", "clip."))}
        return Header({name: field.contents() for name, field in fields.items()}, reader.stored)
    except (OSError, ValueError, KeyError, IndexError, TypeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as GGUF: {shown(str(error))}") from error


@contextmanager
def _file(path: Path) -> Iterator[BinaryIO]:
    try:
        file = open_regular(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as GGUF: {reason(error)}") from error
    with file:
        yield file


class _Reader(GGUFReader):
    """The package's reader, its one access to the bytes replaced, and its list of tensors made without arrays."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._file, self._size, self._reads = file, os.fstat(file.fileno()).st_size, 0
        self._left = MOST_IN_ALL
        self.stored: dict[str, Stored] = {}
        super().__init__(path)

    def _get(
        self,
        offset: int,
        dtype: npt.DTypeLike,
        count: int = 1,
        override_order: Literal["I", "S", "<"] | None = None,
    ) -> npt.NDArray[Any]:
        entry = np.dtype(dtype)
        nbytes = entry.itemsize * int(count)
        self._reads += 1
        self._left -= nbytes
        if nbytes > MOST_BYTES:
            raise ValueError(f"a text in its header claims {nbytes} bytes")
        if self._reads > MOST_READS or self._left < 0:
            raise ValueError("its header is longer than that of an mmproj; is it the language model?")
        self._file.seek(offset)
        content = self._file.read(nbytes)
        if len(content) < nbytes:
            raise ValueError("its header is cut short")
        return np.frombuffer(content, entry.newbyteorder(override_order or self.byte_order))

    def _build_tensors(self, start_offs: int, fields: list[ReaderField]) -> None:
        if self.byte_order != "I":
            raise ValueError("it was written for machines of the other byte order")
        expected = 0
        for field in fields:
            _, _, _, dims, kind, offset = field.parts
            if field.name in self.stored:
                raise ValueError(f"it holds {field.name} twice")
            dtype = GGMLQuantizationType(int(kind[0]))
            block, size = GGML_QUANT_SIZES[dtype]
            shape = tuple(int(side) for side in reversed(dims))  # GGUF counts from the innermost side
            if shape and shape[-1] % block:
                raise ValueError(f"rows of {field.name} have {shape[-1]} entries, not blocks of {block}")
            stored = Stored(dtype.name, shape, start_offs + int(offset[0]), math.prod(shape) // block * size)
            if stored.offset + stored.nbytes > self._size:
                raise ValueError(f"it is cut short: {field.name} ends at byte {stored.offset + stored.nbytes}")
            if int(offset[0]) != expected:  # as gguf_init_from_file of ggml
                raise ValueError(f"{field.name} begins at byte {offset[0]} of its data; expected {expected}")
            expected += -(-stored.nbytes // self.alignment) * self.alignment
            self.stored[field.name] = stored
