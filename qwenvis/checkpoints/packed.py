"""A tower as the kernels want it, in a directory: its file is mapped and not read, so that processes share its pages.

Beside the configs of the checkpoint lies one safetensors file, whose tensors are the bytes of all that the tower keeps,
in its order, each on a cache line. It fits the instruction set and the format that it was packed for.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qwenvis import ops
from qwenvis.checkpoints.checkpoint import CONFIG, PARTS, PROCESSOR, Accept, Checkpoint, configs
from qwenvis.checkpoints.files import draft_of, expanded, regular_file
from qwenvis.checkpoints.shards import INDEX, SINGLE, safetensors_at
from qwenvis.checkpoints.tensors import ARRAYS, Tensor
from qwenvis.errors import CheckpointError, InputError, IsaError, quoted, shown
from qwenvis.io.fields import Section
from qwenvis.weights import Weights

FILE = "packed.safetensors"
LAYOUT = "1"  # of panels and of what a tower keeps; a change of either is another one
PAGE = 4096  # bytes
MAX_SIDE = 1 << 32  # of a tensor
AGAIN = "pack the checkpoint again with `qwenvis pack`"


@dataclass(frozen=True)
class Packed(Checkpoint):
    """A checkpoint whose tensors are packed already, in a file of so many bytes."""

    size: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return self.size

    def fill(self, weights: Weights, progress: Callable[[int, int], object] | None = None) -> None:
        """Map all that the tower keeps. Raises CheckpointError if it is not this file's, IsaError for another CPU's."""
        self._compare(weights.requests)
        wanted = {memory.isa for memory in weights.kept if isinstance(memory, ops.PackedWeight)}
        if wanted != {self.isa}:
            raise IsaError(f"{self.path} is packed for {shown(self.isa)}, not for {', '.join(wanted)}; {AGAIN}")
        sizes = [_nbytes(memory) for memory in weights.kept]
        for memory, part in zip(weights.kept, _mapped(self.path / FILE, sizes), strict=True):
            _take(memory, part)
        if progress is not None:
            progress(sum(sizes), sum(sizes))


def open_packed(directory: Path, accept: Accept | None = None) -> Packed | None:
    """The packed checkpoint of a directory, None where there is none, or other weights; `Checkpoint.open` explains."""
    file = regular_file(directory, FILE)
    if file is None or any(regular_file(directory, name) for name in (SINGLE, INDEX)):
        return None
    with safetensors_at(file) as opened:
        about = opened.metadata() or {}
    try:
        stored = {name: (kind, tuple(shape)) for name, (kind, shape) in json.loads(about["tensors"]).items()}
        layout, isa, number_format = about["layout"], about["isa"], about["format"]
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file} does not say what it holds; {AGAIN}") from error
    if layout != LAYOUT or number_format not in ops.formats():
        raise CheckpointError(f"{file} was written by another version of qwenvis; {AGAIN}")
    if not isa or not _are_tensors(stored.values()):
        raise CheckpointError(f"{file} says that it holds what it cannot; {AGAIN}")
    tensors = {name: Tensor(file, kind, shape) for name, (kind, shape) in stored.items()}
    packing = {"format": number_format, "isa": isa, "size": file.stat().st_size}
    return Packed(directory, prefix="", tensors=tensors, **configs(directory, accept), **packing)


def save(place: str | os.PathLike[str], checkpoint: Checkpoint, weights: Weights) -> None:
    """Write a packed checkpoint of a tower that has been filled, all of it or nothing.

    Raises InputError where something has that name already, or it cannot be written.
    """
    try:
        directory = expanded(os.fsdecode(place)).resolve()
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # RuntimeError: a loop of links, before 3.13
        raise InputError(f"directory is {quoted(place)}, which cannot be the name of one: {error}") from error
    if os.path.lexists(directory):
        raise InputError(f"{directory} already exists; name a new directory")
    stored = {name: (tensor.dtype, tensor.shape) for name, tensor in checkpoint.tensors.items()}
    isa = next(memory.isa for memory in weights.kept if isinstance(memory, ops.PackedWeight))
    about = {"layout": LAYOUT, "isa": isa, "format": weights.format, "tensors": json.dumps(stored)}
    try:
        with draft_of(directory) as draft:
            _write_configs(draft, checkpoint)
            _write(draft / FILE, weights.kept, about)
            draft.rename(directory)
    except OSError as error:
        raise InputError(f"{shown(str(directory))} cannot be written: {error.strerror}") from error


def _write_configs(directory: Path, checkpoint: Checkpoint) -> None:
    """Configs in the order of transformers, so that what the checkpoint lacks is not found elsewhere."""
    processors = zip(PARTS, (checkpoint.preprocessor, checkpoint.video_preprocessor), strict=True)
    files = {
        CONFIG: {"model_type": checkpoint.model_type, "vision_config": dict(checkpoint.vision_config)},
        PROCESSOR: {part: Section(config, part).written for part, config in processors if config},
    }
    for name, content in files.items():
        if content:
            (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write(file: Path, kept: list[Any], about: dict[str, str]) -> None:
    """A safetensors file whose data begin with a page."""
    header: dict[str, Any] = {"__metadata__": about}
    offset = 0
    for nth, memory in enumerate(kept):
        size = _nbytes(memory)
        header[str(nth)] = {"dtype": "U8", "shape": [size], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % PAGE)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for memory in kept:
            out.write(_bytes(memory).data)
            out.write(b"\0" * (_nbytes(memory) - _bytes(memory).nbytes))
        out.flush()
        os.fsync(out.fileno())  # before its directory has its name


def _mapped(file: Path, sizes: list[int]) -> list[np.ndarray]:
    """The tensors of a packed file, which must have these sizes, as views of its pages."""
    with safetensors_at(file) as opened:
        parts = [opened.get_slice(name) for name in opened.offset_keys()]
        found = [(part.get_dtype(), part.get_shape()) for part in parts]
    if found != [("U8", [size]) for size in sizes]:
        raise CheckpointError(f"{file} does not hold what this tower keeps; {AGAIN}")
    try:
        with file.open("rb") as raw:
            start = 8 + int(struct.unpack("<Q", raw.read(8))[0])
        pages = np.memmap(file, np.uint8, "r", start, (sum(sizes),)).view(np.ndarray)
    except (OSError, ValueError, struct.error) as error:
        raise CheckpointError(f"{file} cannot be mapped: {error}") from error
    if start % ops.cache_line:
        raise CheckpointError(f"the tensors of {file} do not begin with a cache line; {AGAIN}")
    return np.split(pages, np.cumsum(sizes[:-1]))


def _nbytes(memory: Any) -> int:
    """Bytes of an array or of a `PackedWeight`, in whole cache lines."""
    return -(-int(memory.nbytes) // ops.cache_line) * ops.cache_line


def _bytes(memory: Any) -> np.ndarray:
    """What an array or a `PackedWeight` holds."""
    array: np.ndarray = memory if isinstance(memory, np.ndarray) else memory.memory
    return array.reshape(-1).view(np.uint8)


def _take(memory: Any, part: np.ndarray) -> None:
    """A packed weight stays in the file; an array, of a norm or of positions, is copied."""
    if isinstance(memory, np.ndarray):
        _bytes(memory)[:] = part[: memory.nbytes]
    else:
        memory.map(part)


def _are_tensors(stored: Collection[tuple[Any, tuple[Any, ...]]]) -> bool:
    """Whether these are types and shapes of tensors, at least one."""
    sizes = [size for _, shape in stored for size in shape]
    known = all(isinstance(kind, str) and kind in ARRAYS and len(shape) <= 5 for kind, shape in stored)
    return bool(stored) and known and all(type(size) is int and 0 <= size < MAX_SIDE for size in sizes)
