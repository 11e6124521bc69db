"""Packed checkpoints: a tower as the kernels read it, in a file that is mapped, so that processes share its pages.

Beside the configs of the checkpoint lies one safetensors file, whose tensors are the bytes of all memory that the tower
keeps, in its order, each on a cache line. The file fits the instruction set and the format that it was packed for.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qwenvis import ops
from qwenvis.checkpoints.checkpoint import Checkpoint, Progress
from qwenvis.checkpoints.configs import Configs
from qwenvis.checkpoints.files import regular_file
from qwenvis.checkpoints.shards import INDEX, SINGLE, header_bytes
from qwenvis.checkpoints.stored import TYPES, Header, StoredTensor
from qwenvis.checkpoints.tensors import Tensor
from qwenvis.errors import CheckpointError, IsaError, shown
from qwenvis.io.drafts import whole_directory
from qwenvis.weights import Request, Weights, as_bytes

FILE = "packed.safetensors"
LAYOUT = "1"  # of panels, and of the memory that a tower keeps: raise it with a change of either
PAGE = 4096  # bytes
MAX_SIDE = 1 << 32  # of a tensor
AGAIN = "pack the checkpoint again with `qwenvis pack`"


@dataclass(frozen=True, kw_only=True)
class Packed(Checkpoint):
    """A checkpoint whose tensors are packed already; ``stored`` are the bytes that the tower keeps, in its order."""

    stored: Sequence[StoredTensor]
    sha256: str  # of the weights, as `Weights.sha256`; empty in files of earlier versions

    @property
    def files(self) -> list[Path]:
        """The only file."""
        return [self.path / FILE]

    @property
    def nbytes(self) -> int:
        """Bytes on disk, the header included."""
        return self.stored[-1].offset + self.stored[-1].nbytes

    def fill(self, weights: Weights, progress: Progress | None = None) -> None:
        """Map all memory that the tower keeps.

        Raises CheckpointError for a file with other contents, and IsaError for a file that was packed for another
        instruction set.
        """
        self._compare(weights.requests)
        wanted = {memory.isa for memory in weights.kept if isinstance(memory, ops.PackedWeight)}
        if wanted != {self.isa}:
            raise IsaError(f"{self.path} is packed for {shown(self.isa)}, not for {', '.join(wanted)}; {AGAIN}")
        sizes = [_nbytes(memory) for memory in weights.kept]
        for memory, part in zip(weights.kept, self._mapped(sizes), strict=True):
            _take(memory, part)
        weights.hashes[:] = [self.sha256] if self.sha256 else []
        if progress is not None:
            progress(sum(sizes), sum(sizes))

    def load(self, requests: Sequence[Request], progress: Progress | None = None) -> None:
        """Raise CheckpointError: the tensors have become packed weights, which `fill` maps."""
        raise CheckpointError(f"the tensors of {self.path} are packed; load those of the checkpoint that was packed")

    def _mapped(self, sizes: list[int]) -> list[np.ndarray]:
        """Map the stored bytes, which must have these sizes, and return views of the pages."""
        file, start = self.stored[0].file, self.stored[0].offset
        if [(stored.dtype, stored.nbytes) for stored in self.stored] != [("U8", size) for size in sizes]:
            raise CheckpointError(f"{file.path} does not hold the tensors of this tower; {AGAIN}")
        if start % ops.cache_line:
            raise CheckpointError(f"the tensors of {file.path} do not begin at a cache line; {AGAIN}")
        with file.opened(self.open_file) as raw:
            try:
                pages = np.memmap(raw, np.uint8, "r", start, (sum(sizes),)).view(np.ndarray)
            except (OSError, ValueError) as error:
                raise CheckpointError(f"{file.path} cannot be mapped: {error}") from error
        return np.split(pages, np.cumsum(sizes[:-1]))


def packed_file(directory: Path) -> Path | None:
    """Find the file of packed weights in a directory; None where there is none, or where there are other weights."""
    file = regular_file(directory, FILE)
    if file is None or any(regular_file(directory, name) for name in (SINGLE, INDEX)):
        return None
    return file


def open_packed(header: Header, configs: Configs) -> Packed:
    """Find the packed checkpoint in the header of its file, and beside it. Raises CheckpointError."""
    file, about = header.file.path, header.metadata
    try:
        tensors = {name: (kind, tuple(shape)) for name, (kind, shape) in json.loads(about["tensors"]).items()}
        layout, isa, number_format = about["layout"], about["isa"], about["format"]
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file} does not describe its content; {AGAIN}") from error
    if layout != LAYOUT or number_format not in ops.formats():
        raise CheckpointError(f"{file} was written by another version of qwenvis; {AGAIN}")
    digest = about.get("sha256", "")
    if digest and not re.fullmatch("[0-9a-f]{64}", digest):
        raise CheckpointError(f"{file} has {shown(digest)} as the SHA-256 of its weights; {AGAIN}")
    if not isa or not header.tensors or not _are_tensors(tensors.values()):
        raise CheckpointError(f"{file} describes impossible tensors; {AGAIN}")
    return Packed(
        file.parent,
        prefix="",
        tensors={name: Tensor(kind, shape) for name, (kind, shape) in tensors.items()},
        stored=tuple(header.tensors.values()),
        sha256=digest,
        format=number_format,
        isa=isa,
        **configs,
    )


def save(place: str | os.PathLike[str], checkpoint: Checkpoint, weights: Weights, threads: int) -> None:
    """Write a packed checkpoint of a tower whose weights have been read, all of it or nothing.

    The file states the SHA-256 of the weights, so that an encoder that maps them never hashes them.
    Raises InputError where something has the name ``place`` already, or where the directory cannot be written.
    """
    stored = {name: (tensor.dtype, tensor.shape) for name, tensor in checkpoint.tensors.items()}
    isa = next(memory.isa for memory in weights.kept if isinstance(memory, ops.PackedWeight))
    about = {"layout": LAYOUT, "isa": isa, "format": weights.format, "tensors": json.dumps(stored)}
    about["sha256"] = weights.sha256(threads)
    with whole_directory(place) as draft:
        checkpoint.write_configs(draft)
        _write(draft / FILE, weights.kept, about)


def _write(file: Path, kept: list[Any], about: dict[str, str]) -> None:
    """Write a safetensors file whose data begin with a page."""
    sizes = [_nbytes(memory) for memory in kept]
    header = header_bytes({str(nth): ("U8", [size], size) for nth, size in enumerate(sizes)}, about, PAGE)
    with file.open("wb") as out:
        out.write(header)
        for size, memory in zip(sizes, kept, strict=True):
            out.write(as_bytes(memory).data)
            out.write(b"\0" * (size - as_bytes(memory).nbytes))


def _nbytes(memory: Any) -> int:
    """Count the bytes of an array or of a `PackedWeight`, in whole cache lines."""
    return -(-int(memory.nbytes) // ops.cache_line) * ops.cache_line


def _take(memory: Any, part: np.ndarray) -> None:
    """Leave a packed weight in the file; copy an array, of a norm or of positions, into memory."""
    if isinstance(memory, np.ndarray):
        as_bytes(memory)[:] = part[: memory.nbytes]
    else:
        memory.map(part)


def _are_tensors(stored: Collection[tuple[Any, tuple[Any, ...]]]) -> bool:
    """Return whether these are the types and shapes of one or more tensors."""
    sizes = [size for _, shape in stored for size in shape]
    known = all(isinstance(kind, str) and kind in TYPES and len(shape) <= 5 for kind, shape in stored)
    return bool(stored) and known and all(type(size) is int and 0 <= size < MAX_SIDE for size in sizes)
