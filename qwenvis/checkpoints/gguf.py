"""The header of a GGUF file: its metadata, and its tensors by name. The gguf package knows the format.

The package reads a map of the file and believes every length in it. Here the header is read from the file, within
bounds: a file that is cut short while it is read is an error and never a SIGBUS, and an array that claims 2⁶⁰ entries
ends with the file. The package still makes its map, of the open file, and nothing is read through it.
"""

from __future__ import annotations

import math
import os
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.gguf_reader import GGUFReader, ReaderField

from qwenvis.checkpoints.stored import Header, OpenFile, StoredFile, StoredTensor
from qwenvis.errors import CheckpointError, shown
from qwenvis.io.files import open_regular, reason

# The header of an mmproj takes some 5,000 reads. A language model's has a vocabulary of 150,000 words, which the
# package would turn into as many arrays.
MOST_READS = 100_000
MOST_BYTES = 1 << 20  # of one name or text
MOST_IN_ALL = 1 << 24  # bytes of a header


def read_header(path: Path, open_file: OpenFile = open_regular) -> Header:
    """Read the header of a file: ``general.*`` and ``clip.*`` of its metadata, and the tensors.

    Raises CheckpointError for a file that is no GGUF file, is damaged, or is cut short.
    """
    try:
        file = open_file(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as GGUF: {reason(error)}") from error
    with file:
        try:
            return _header(path, file)
        except (OSError, ValueError, KeyError, IndexError, TypeError, OverflowError, RecursionError) as error:
            raise CheckpointError(f"{path} cannot be read as GGUF: {shown(str(error))}") from error


def _header(path: Path, file: BufferedReader) -> Header:
    reader = _Reader(file)
    fields = {name: field for name, field in reader.fields.items() if name.startswith(("general.", "clip."))}
    metadata = {name: field.contents() for name, field in fields.items()}
    file.seek(0)
    stored = StoredFile.of(path, file.read(reader.end))
    return Header(
        stored, metadata, {name: StoredTensor(name, stored, *entry) for name, entry in reader.entries.items()}
    )


class _Reader(GGUFReader):
    """The reader of the gguf package, with bounded access to the bytes, and tensors listed without arrays.

    ``end`` is the length of the header; ``entries`` are (type, shape in the order of NumPy, offset, bytes) by name.
    """

    def __init__(self, file: BufferedReader) -> None:
        self._file, self._size, self._reads = file, file.seek(0, os.SEEK_END), 0
        self._left = MOST_IN_ALL
        self.end = 0
        self.entries: dict[str, tuple[str, tuple[int, ...], int, int]] = {}
        # The package maps this file, and never reads it: the GGUF file itself may be elsewhere.
        super().__init__(__file__)

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
            raise ValueError("its header is truncated")
        self.end = max(self.end, offset + nbytes)
        return np.frombuffer(content, entry.newbyteorder(override_order or self.byte_order))

    def _build_tensors(self, start_offs: int, fields: list[ReaderField]) -> None:
        if self.byte_order != "I":
            raise ValueError("it was written for machines of the other byte order")
        expected = 0
        for field in fields:
            _, _, _, dims, kind, offset = field.parts
            if field.name in self.entries:
                raise ValueError(f"it holds {field.name} twice")
            dtype = GGMLQuantizationType(int(kind[0]))
            block, size = GGML_QUANT_SIZES[dtype]
            shape = tuple(int(side) for side in reversed(dims))  # GGUF counts from the innermost side
            if not shape:
                raise ValueError(f"{field.name} has no axes")
            if shape[-1] % block:
                raise ValueError(f"rows of {field.name} have {shape[-1]} entries, not blocks of {block}")
            begin, nbytes = start_offs + int(offset[0]), math.prod(shape) // block * size
            if begin + nbytes > self._size:
                raise ValueError(f"it is truncated: {field.name} ends at byte {begin + nbytes}")
            if int(offset[0]) != expected:  # as gguf_init_from_file of ggml
                raise ValueError(f"{field.name} begins at byte {offset[0]} of its data; expected {expected}")
            expected += -(-nbytes // self.alignment) * self.alignment
            self.entries[field.name] = dtype.name, shape, begin, nbytes
