"""safetensors files: their headers, and the shards of a directory in the Hub's layout that hold the tower.

Only the shards that hold the tower are opened. Headers are parsed here, because the safetensors package opens local
files only and does not say where in a file a tensor lies.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

from qwenvis.checkpoints.checkpoint import Checkpoint
from qwenvis.checkpoints.configs import Configs
from qwenvis.checkpoints.files import LOCAL, Files, json_object, read_json, regular_file
from qwenvis.checkpoints.stored import FLOATS, Header, OpenFile, StoredFile, StoredTensor
from qwenvis.checkpoints.tensors import Tensor, channels_first, refuse_quantised, tower_among
from qwenvis.errors import CheckpointError, listed, quoted, shown
from qwenvis.io.files import open_regular, reason

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

# The largest published index has 370,000 entries, in 40 MB: a tensor for each quantised projection of each expert.
MAX_INDEX_BYTES = 64_000_000
MOST_TENSORS = 500_000
MAX_HEADER_BYTES = 32_000_000  # of one file
MOST_HEADER_ENTRIES = 2_000_000  # commas, or brackets, of one header: each tensor has some eight

_METADATA = "__metadata__"
_ITEMSIZES = {"U8": 1, **{name: dtype.itemsize for name, dtype in FLOATS.items()}}

# The names that an index may give a shard: without any character that is special in a path, a shell or a terminal.
_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@-]{0,200}\.safetensors")
_WEIGHTS = {".safetensors", ".bin", ".gguf", ".npz", ".pt", ".pth"}
# The end of a file's name in a directory without a model.safetensors -> the advice of the message.
_HINTS = {
    ".gguf": "; name the mmproj file itself to read it",
    "adapter_model.safetensors": "; an adapter has no tower: merge it into the model that it was made for",
}


def open_shards(directory: Path, configs: Configs, files: Files = LOCAL) -> Checkpoint:
    """Read the headers of the tower's shards in a directory in the Hub's layout, whose configs have been read.

    Raises CheckpointError for weights that are missing, damaged, quantised or without a tower.
    """
    prefix, stored = _tower_tensors(directory, files)
    tensors = {name.removeprefix(prefix): Tensor.of(tensor) for name, tensor in stored.items()}
    refuse_quantised(directory, tensors, configs["config"])
    tensors = channels_first(tensors)
    return Checkpoint(directory, prefix=prefix, tensors=tensors, open_file=files.open, **configs)


def tower_shards(directory: Path) -> list[str]:
    """Name the files that hold the tower, as the index lists them: the shards need not be there.

    Raises CheckpointError where the index names no tower, or where neither an index nor the single file is there.
    """
    if regular_file(directory, SINGLE) is not None:
        return [SINGLE]
    return sorted(_by_shard(directory, _read_index(directory))[-1])


def read_header(path: Path, open_file: OpenFile = open_regular) -> Header:
    """Read the header of a safetensors file. Raises CheckpointError for a file that is damaged or cut short."""
    try:
        with open_file(path) as file:
            header, size = _header_bytes(file)
        return parse_header(path, header, size)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {shown(str(error))}") from error


def _header_bytes(file: BufferedReader) -> tuple[bytes, int]:
    """Read the header, its length included, and the size of the file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > size - 8:
        raise ValueError(f"its header is truncated, for the file has {size} bytes")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header has {length:,} bytes; at most {MAX_HEADER_BYTES:,} are read")
    return start + file.read(length), size


def parse_header(path: Path, header: bytes, size: int) -> Header:
    """Parse the header of a file of ``size`` bytes, the length of the header included. Raises ValueError."""
    content = json_object(header[8:], MOST_HEADER_ENTRIES)
    metadata = content.pop(_METADATA, None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"its {_METADATA} is not an object with text values")
    file, end = StoredFile.of(path, header), len(header)
    tensors = {}
    for tensor in sorted((_tensor(file, *item) for item in content.items()), key=lambda tensor: tensor.offset):
        if tensor.offset != end:
            raise ValueError(f"the bytes of {tensor.name} begin at {tensor.offset}, expected {end}")
        end += tensor.nbytes
        tensors[tensor.name] = tensor
    if end != size:
        raise ValueError(f"its tensors end at byte {end}, and the file at byte {size}")
    return Header(file, metadata, tensors)


def _tensor(file: StoredFile, name: str, entry: object) -> StoredTensor:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]} if all(
            type(number) is int and number >= 0 for number in (*shape, begin, end)
        ):
            size = _ITEMSIZES.get(dtype)  # None for a type that is never read
            if begin <= end and (size is None or size * math.prod(shape) == end - begin):
                return StoredTensor(name, file, dtype, tuple(shape), file.header_nbytes + begin, end - begin)
    raise ValueError(f"the entry of {name} is {quoted(entry)}, which is not a tensor")


def header_bytes(
    tensors: Mapping[str, tuple[str, Sequence[int], int]], metadata: Mapping[str, str], align: int
) -> bytes:
    """Make the header of a file of tensors, name -> (type, shape, bytes), in this order.

    The data behind the header begin at a multiple of ``align`` bytes.
    """
    content: dict[str, Any] = {_METADATA: metadata}
    end = 0
    for name, (dtype, shape, nbytes) in tensors.items():
        content[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + nbytes]}
        end += nbytes
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % align)
    return len(text).to_bytes(8, "little") + text


def _tower_tensors(directory: Path, files: Files) -> tuple[str, dict[str, StoredTensor]]:
    """List the tower's prefix and its tensors, in the order of the files.

    The single file comes before an index, as in transformers.
    """
    if (single := files.find(directory, SINGLE)) is not None:
        tensors = read_header(single, files.open).tensors
        prefix, begin = tower_among(tensors, directory)
        return prefix, {name: tensor for name, tensor in tensors.items() if begin.match(name)}
    index = _read_index(directory)
    prefix, begin, shards = _by_shard(directory, index)
    found: dict[str, StoredTensor] = {}
    for shard in sorted(shards):
        try:
            found |= _in_shard(directory / shard, files, begin, shards[shard])
        except CheckpointError as error:
            unread = isinstance(error.__cause__, OSError)  # which says nothing about the index
            if not unread and (hint := _stale(directory, set(index.values()))):
                raise CheckpointError(f"{error}; {hint}") from error
            raise
    return prefix, found


def _by_shard(directory: Path, index: Mapping[str, str]) -> tuple[str, re.Pattern[str], dict[str, list[str]]]:
    """List the tower's prefix, the pattern of its names, and the names by shard."""
    prefix, begin = tower_among(index, directory)
    shards: dict[str, list[str]] = {}
    for name, file in index.items():
        if begin.match(name):
            shards.setdefault(file, []).append(name)
    return prefix, begin, shards


def _in_shard(path: Path, files: Files, begin: re.Pattern[str], indexed: list[str]) -> dict[str, StoredTensor]:
    """List the tower's tensors in one shard, in the order of their bytes; they must match the index."""
    if files.find(path.parent, path.name) is None:
        raise CheckpointError(f"{path.parent} lacks {path.name}, which holds tensors of the tower: {listed(indexed)}")
    tensors = {name: tensor for name, tensor in read_header(path, files.open).tensors.items() if begin.match(name)}
    if absent := [name for name in indexed if name not in tensors]:
        raise CheckpointError(f"{path} lacks tensors that {INDEX} says it holds: {listed(absent)}")
    if unknown := sorted(tensors.keys() - set(indexed)):
        raise CheckpointError(f"{path} holds tensors of the tower that are not in {INDEX}: {listed(unknown)}")
    return tensors


def _read_index(directory: Path) -> dict[str, str]:
    """Read the index: the name of each tensor -> the name of its file."""
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


def _stale(directory: Path, indexed: set[str]) -> str:
    """Advise on an index that does not belong to the one safetensors file beside it; empty where it may belong."""
    here = [name for name in _listing(directory) if name.endswith(".safetensors")]
    if len(here) != 1 or {*here} == indexed:
        return ""
    return f"if {here[0]} holds the whole model, {INDEX} is not its own: remove that, and call the file {SINGLE}"


def _listing(directory: Path) -> list[str]:
    """List the names of the entries of a directory."""
    try:
        return sorted(path.name for path in directory.iterdir())
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be read: {reason(error)}") from error
