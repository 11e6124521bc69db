"""The safetensors files of a directory: which of them hold the tower, what their headers say, their tensors by name.

Files are read by safetensors' own reader, by pread: a file that is cut short while it is read is an error, never a
SIGBUS. Only the shards that hold the tower are opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from qwenvis.checkpoints.files import read_json, regular_file
from qwenvis.checkpoints.tensors import Read, Tensor, tower_among
from qwenvis.errors import CheckpointError, listed, quoted, shown
from qwenvis.io.files import open_regular, reason

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

# The largest published index has 370,000 entries, in 40 MB: a tensor for each quantised projection of each expert.
MAX_INDEX_BYTES = 64_000_000
MOST_TENSORS = 500_000
MAX_HEADER_BYTES = 32_000_000  # of one file

# The whole of what an index may call a shard: nothing that a path, a shell or a terminal could read as more.
_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@-]{0,200}\.safetensors")
_WEIGHTS = {".safetensors", ".bin", ".gguf", ".npz", ".pt", ".pth"}
# What lies in a directory without a model.safetensors -> what its owner wants.
_HINTS = {
    ".gguf": "; name the mmproj file itself to read it",
    "adapter_model.safetensors": "; an adapter has no tower: merge it into the model that it was made for",
}


def tower_shards(directory: Path) -> tuple[str, re.Pattern[str], dict[str, list[str]]]:
    """The tower's prefix, how its full names begin, and these by file name.

    An index tells both alone, so the shards need not be here. Raises `CheckpointError` where neither an index nor
    the single file is here, or where it names no tower.
    """
    return _of_tower(directory, _weight_map(directory))


def tower_tensors(directory: Path) -> tuple[str, dict[str, Tensor]]:
    """The tower's prefix, and its tensors by the names behind it, in the order of the files; no tensor is read."""
    weight_map = _weight_map(directory)
    prefix, begin, shards = _of_tower(directory, weight_map)
    tensors: dict[str, Tensor] = {}
    for shard in sorted(shards):
        try:
            tensors |= _read_header(directory, shard, begin, shards[shard])
        except CheckpointError as error:
            if hint := _stale(directory, set(weight_map.values())):
                raise CheckpointError(f"{error}; {hint}") from error
            raise
    return prefix, {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _of_tower(directory: Path, weight_map: dict[str, str]) -> tuple[str, re.Pattern[str], dict[str, list[str]]]:
    prefix, begin = tower_among(weight_map, directory)
    shards: dict[str, list[str]] = {}
    for name, file in weight_map.items():
        if begin.match(name):
            shards.setdefault(file, []).append(name)
    return prefix, begin, shards


def _stale(directory: Path, indexed: set[str]) -> str:
    """What to do about an index beside one file that it does not name, or where one of those that it names is alone."""
    here = [name for name in _listing(directory) if name.endswith(".safetensors")]
    if len(here) != 1 or {*here} == indexed:
        return ""
    return f"if {here[0]} holds the whole model, {INDEX} is not its own: remove that, and call the file {SINGLE}"


def _listing(directory: Path) -> list[str]:
    """The names of what lies in a directory."""
    try:
        return sorted(path.name for path in directory.iterdir())
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be read: {reason(error)}") from error


@contextmanager
def opened(path: Path) -> Iterator[Read]:
    """A file whose tensors can be read by name; raises CheckpointError for what cannot."""
    with safetensors_at(path) as handle:

        def read(name: str) -> np.ndarray:
            try:
                array: np.ndarray = handle.get_tensor(name)
            except (SafetensorError, OSError, ValueError, AttributeError) as error:
                raise CheckpointError(f"{path}: {shown(name)} cannot be read: {shown(str(error))}") from error
            return array

        yield read


def _weight_map(directory: Path) -> dict[str, str]:
    """Which file holds each tensor. The single file comes before an index, as in transformers."""
    if (single := regular_file(directory, SINGLE)) is not None:
        with safetensors_at(single) as handle:
            return dict.fromkeys(handle.keys(), SINGLE)
    index = read_json(directory, INDEX, CheckpointError, MAX_INDEX_BYTES, MOST_TENSORS)
    if index is None:
        found = [name for name in _listing(directory) if Path(name).suffix in _WEIGHTS]
        hint = "".join(hint for end, hint in _HINTS.items() if any(name.endswith(end) for name in found))
        raise CheckpointError(f"{directory} holds neither {SINGLE} nor {INDEX}; found {listed(found)}{hint}")
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f'{directory / INDEX} has no "weight_map" from tensor names to file names')
    for name, file in weight_map.items():
        if not isinstance(file, str) or not _SHARD_NAME.fullmatch(file):
            where = f"{directory / INDEX} says that {shown(name)} is in {quoted(file)}"
            raise CheckpointError(f"{where}; expected the plain name of a .safetensors file beside it")
    return weight_map


def _read_header(directory: Path, shard: str, begin: re.Pattern[str], indexed: list[str]) -> dict[str, Tensor]:
    """The tower's tensors in one shard, in the order of their bytes; they must be those that the index names."""
    path = regular_file(directory, shard)
    if path is None:
        raise CheckpointError(f"{directory} lacks {shard}, which holds tensors of the tower: {listed(indexed)}")
    tensors = {}
    with safetensors_at(path) as handle:
        for name in handle.offset_keys():
            if begin.match(name):
                header = handle.get_slice(name)
                tensors[name] = Tensor(path, header.get_dtype(), tuple(header.get_shape()))
    if absent := [name for name in indexed if name not in tensors]:
        raise CheckpointError(f"{path} lacks tensors that {INDEX} says it holds: {listed(absent)}")
    if unknown := sorted(tensors.keys() - set(indexed)):
        raise CheckpointError(f"{path} holds tensors of the tower that are not in {INDEX}: {listed(unknown)}")
    return tensors


@contextmanager
def safetensors_at(path: Path) -> Iterator[Any]:
    """A file as safetensors opens it, by pread; raises CheckpointError for what it cannot open."""
    try:
        with open_regular(path) as file:
            header = int.from_bytes(file.read(8), "little")
            size = os.fstat(file.fileno()).st_size
        if MAX_HEADER_BYTES < header < size:
            raise ValueError(f"its header has {header:,} bytes; at most {MAX_HEADER_BYTES:,} are read")
        handle = safe_open(path, framework="numpy", backend="pread")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error)}") from error
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {shown(str(error))}") from error
    with handle:
        yield handle
