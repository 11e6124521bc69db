"""A tower as the kernels want it, in a directory: its file is mapped and not read, so that processes share its pages.

Beside the configs of the checkpoint lies one safetensors file, whose tensors are the bytes of all that the tower keeps,
in its order, each on a cache line. It fits the instruction set and the format that it was packed for.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qwenvis import ops
from qwenvis.checkpoint import CONFIG, PREPROCESSOR, VIDEO_PREPROCESSOR, Checkpoint, configs
from qwenvis.directory import regular_file
from qwenvis.errors import CheckpointError, InputError, IsaError
from qwenvis.layouts import ARRAYS, Tensor
from qwenvis.shards import handle
from qwenvis.weights import Weights

FILE = "packed.safetensors"
LAYOUT = "1"  # of panels and of what a tower keeps; a change of either is another one
FORMATS = ("f32", "bf16")
CACHE_LINE, PAGE = 64, 4096
AGAIN = "pack the checkpoint again with save_packed"


@dataclass(frozen=True)
class Packed(Checkpoint):
    """A checkpoint whose tensors are packed already, for one ``isa``."""

    isa: str = ""

    def fill(self, weights: Weights, progress: Callable[[int, int], object] | None = None) -> None:
        """Map all that the tower keeps. Raises CheckpointError if it is not this file's, IsaError for another CPU's."""
        self._compare(weights.requests)
        if self.isa != ops.isa():
            raise IsaError(f"{self.path} is packed for {self.isa}, and this process runs {ops.isa()}; {AGAIN}")
        file, sizes = self.path / FILE, [_nbytes(memory) for memory in weights.kept]
        for memory, part in zip(weights.kept, _mapped(file, sizes), strict=True):
            _take(memory, part)
        if progress is not None:
            progress(sum(sizes), sum(sizes))


def open_packed(
    directory: Path, accept: Callable[[str, dict[str, Any]], object] | None = None
) -> Packed | None:
    """The packed checkpoint of a directory, None where there is none; as `Checkpoint.open`, headers are all it reads."""
    file = regular_file(directory, FILE)
    if file is None:
        return None
    with handle(file) as opened:
        about = opened.metadata() or {}
    try:
        stored = {name: (kind, tuple(shape)) for name, (kind, shape) in json.loads(about["tensors"]).items()}
        isa, number_format = about["isa"], about["format"]
        fits = about["layout"] == LAYOUT and number_format in FORMATS and all(map(_is_tensor, stored.values()))
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file} does not say what it holds; {AGAIN}") from error
    if not fits:
        raise CheckpointError(f"{file} was written by another version of qwenvis; {AGAIN}")
    tensors = {name: Tensor(file, kind, shape) for name, (kind, shape) in stored.items()}
    found = configs(directory, accept)
    return Packed(directory, prefix="", tensors=tensors, format=number_format, isa=isa, **found)


def save(directory: Path, checkpoint: Checkpoint, weights: Weights, isa: str) -> None:
    """Write a packed checkpoint of a tower that has been filled. Raises InputError where anything is in the way."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise InputError(f"{directory} is not empty; name a directory that is not there yet")
    except OSError as error:
        raise InputError(f"{directory} cannot be written: {error}") from error
    config = {"model_type": checkpoint.model_type, "vision_config": checkpoint.vision_config}
    files = {CONFIG: config, PREPROCESSOR: checkpoint.preprocessor, VIDEO_PREPROCESSOR: checkpoint.video_preprocessor}
    for name, content in files.items():
        if content:
            (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    stored = {name: (tensor.dtype, tensor.shape) for name, tensor in checkpoint.tensors.items()}
    about = {"layout": LAYOUT, "isa": isa, "format": weights.format, "tensors": json.dumps(stored)}
    unfinished = directory / f"{FILE}.unfinished"
    _write(unfinished, weights.kept, about)
    unfinished.rename(directory / FILE)


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
            out.write(_bytes(memory))
            out.write(b"\0" * (_nbytes(memory) - _bytes(memory).nbytes))


def _mapped(file: Path, sizes: list[int]) -> list[np.ndarray]:
    """The tensors of a packed file, which must have these sizes, as views of its pages."""
    with handle(file) as opened:
        shapes = [opened.get_slice(name).get_shape() for name in opened.offset_keys()]
    with file.open("rb") as raw:
        start = 8 + int(struct.unpack("<Q", raw.read(8))[0])
    if shapes != [[size] for size in sizes] or start % CACHE_LINE:
        raise CheckpointError(f"{file} does not hold what this tower keeps; {AGAIN}")
    pages = np.memmap(file, np.uint8, "r", start).view(np.ndarray)
    return np.split(pages, np.cumsum(sizes[:-1]))


def _nbytes(memory: Any) -> int:
    """Bytes of an array or of a `PackedWeight`, in whole cache lines."""
    return -(-int(memory.nbytes) // CACHE_LINE) * CACHE_LINE


def _bytes(memory: Any) -> np.ndarray:
    return memory.reshape(-1).view(np.uint8) if isinstance(memory, np.ndarray) else memory.memory


def _take(memory: Any, part: np.ndarray) -> None:
    """An array is copied, being small; a packed weight stays where it is."""
    if isinstance(memory, np.ndarray):
        memory.reshape(-1).view(np.uint8)[:] = part[: memory.nbytes]
    else:
        memory.map(part)


def _is_tensor(stored: tuple[Any, tuple[Any, ...]]) -> bool:
    kind, shape = stored
    return kind in ARRAYS and all(isinstance(size, int) and size >= 0 for size in shape)
