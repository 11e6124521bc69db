"""Extracts: the tower of any checkpoint alone, in one safetensors file beside its configs.

The directory has the Hub's layout, and loads to the same bits. A tensor keeps the type that it is stored in; one that
is stored quantised to 8 bits, or in parts, becomes what it is when it is read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from io import BufferedWriter
from itertools import accumulate

import numpy as np

from qwenvis.checkpoints.checkpoint import Checkpoint, Progress
from qwenvis.checkpoints.shards import SINGLE, header_bytes
from qwenvis.checkpoints.stored import FLOATS
from qwenvis.checkpoints.tensors import Tensor
from qwenvis.errors import InputError
from qwenvis.io.drafts import whole_directory
from qwenvis.weights import Request

ALIGN = 8  # bytes, as in files of the safetensors package


def extract(
    place: str | os.PathLike[str],
    checkpoint: Checkpoint,
    requests: Sequence[Request],
    progress: Progress | None = None,
) -> None:
    """Write the tower of a checkpoint, whose tensors are ``requests``, into a new directory: all of it or nothing.

    ``progress(bytes_done, bytes_total)`` is called after each tensor. Raises InputError where something has the name
    ``place`` already, where the directory cannot be written, and for a packed checkpoint, which has no tensors;
    SourceError and CheckpointError as `Checkpoint.load`.
    """
    if checkpoint.format:
        raise InputError(f"{checkpoint.path} is packed; name the checkpoint that it was packed from")
    entries = _entries(checkpoint.tensors)
    named = {checkpoint.prefix + name: entry for name, entry in entries.items()}
    header = header_bytes(named, {"format": "pt", **_origin(checkpoint)}, ALIGN)
    ends = accumulate((nbytes for _, _, nbytes in entries.values()), initial=len(header))
    begins = dict(zip(entries, ends, strict=False))
    with whole_directory(place) as draft:
        checkpoint.write_configs(draft)
        with (draft / SINGLE).open("wb") as out:
            out.write(header)
            writers = [Request(each.name, each.shape, partial(_write, out, begins, each.name)) for each in requests]
            checkpoint.streamed().load(writers, progress)


def _entries(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """List type, shape and bytes of each tensor in the file: wide types first, so that all are aligned."""
    entries = {}
    for name, tensor in tensors.items():
        dtype = tensor.dtype if tensor.dtype in FLOATS else "F32"
        entries[name] = dtype, tensor.shape, FLOATS[dtype].itemsize * math.prod(tensor.shape)
    return dict(sorted(entries.items(), key=lambda item: -FLOATS[item[1][0]].itemsize))


def _origin(checkpoint: Checkpoint) -> dict[str, str]:
    """Name the repo and the commit of a checkpoint of the Hub; of other checkpoints, nothing."""
    found = {key: checkpoint.source.get(key) for key in ("source", "revision")}
    return {key: str(value) for key, value in found.items()} if found["revision"] else {}


def _write(out: BufferedWriter, begins: Mapping[str, int], name: str, array: np.ndarray) -> None:
    out.seek(begins[name])
    out.write(array.reshape(-1).view(np.uint8).data)
