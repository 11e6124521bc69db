"""Stored tensors that become another type while they are read, in pieces, so that no tensor is in memory twice.

transformers maps the files of a checkpoint, and converts tensors of another type than that of the model. The pages of
all converted tensors stay in memory, beside the tensors, until the last one is converted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from qwenvis.adapters.transformers.weights import STORED
from qwenvis.checkpoints.shards import read_header
from qwenvis.checkpoints.stored import StoredTensor
from qwenvis.errors import CheckpointError

PIECE = 1 << 15  # entries: larger buffers leave holes in the heap, between the tensors, when they are freed
TYPES = {name: dtype for dtype, name in STORED.items()}


class Converted:
    """A stored tensor of another type. transformers reads it whole, by ``[...]``."""

    def __init__(self, stored: StoredTensor, dtype: torch.dtype) -> None:
        self.stored, self.dtype = stored, dtype

    def __getitem__(self, index: object) -> torch.Tensor:
        """Read the tensor in pieces. Raises CheckpointError for a file that ends too early."""
        out = torch.empty(self.stored.shape, dtype=self.dtype)
        piece = torch.empty(min(PIECE, out.numel()), dtype=TYPES[self.stored.dtype])
        entries = piece.view(torch.uint8).numpy().reshape(len(piece), -1)
        with self.stored.file.path.open("rb") as file:
            file.seek(self.stored.offset)
            for part in torch.split(out.view(-1), PIECE):
                if file.readinto(entries[: len(part)].data) < entries[: len(part)].nbytes:
                    raise CheckpointError(f"{self.stored.file.path} ends within {self.stored.name}")
                part.copy_(piece[: len(part)])
        return out


@contextmanager
def opened(names: Sequence[str], dtype: torch.dtype) -> Iterator[dict[str, Any]]:
    """Open safetensors files, and yield their tensors by name, unread; those of other float types become ``dtype``."""
    tensors: dict[str, Any] = {}
    files: list[Any] = [safe_open(name, "pt") for name in names]
    try:
        for name, file in zip(names, files, strict=True):
            for key, stored in read_header(Path(name)).tensors.items():
                converts = TYPES.get(stored.dtype, dtype) != dtype
                tensors[key] = Converted(stored, dtype) if converts else file.get_slice(key)
        yield tensors
    finally:
        for file in files:
            file.__exit__(None, None, None)
