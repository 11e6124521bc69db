"""The safetensors file of an `Embeddings`: written whole or not at all, and checked when it is read."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialized
from safetensors.numpy import save_file

from qwenvis.embeddings.keys import TEXT, text
from qwenvis.embeddings.rules import check_finite, check_shapes
from qwenvis.errors import InputError, shown
from qwenvis.geometry import patch_counts
from qwenvis.io.drafts import whole_file
from qwenvis.io.files import expanded, given_path, open_regular

TOKENS, GRID, SIZES, DEEPSTACK = "embeddings", "grid_thw", "sizes", "deepstack"
# Tensors of files with videos: those of all items one after the other; COUNTS has the number of frames of each item.
FRAMES, STAMPS, SECONDS, COUNTS = "frame_indices", "timestamps", "second_per_grid_ts", "frame_counts"
# Metadata beside the provenance. A value of the provenance that is not UTF-8 (a path in another encoding) is written as
# ASCII JSON, under its name with the suffix ESCAPED.
MERGE_SIZE, SOURCES, KEYS, ESCAPED = "merge_size", "sources", "keys", ".json"
LENGTH = 8  # bytes that state the length of the header, which follows them
MERGE_SIZES = {str(size): size for size in range(1, 17)}  # as they are written in a file

# Suffixes of other formats than safetensors: arrays, checkpoints, tables, images and videos.
OTHER_FORMATS = (
    *(".npy", ".npz", ".h5", ".hdf5", ".mat", ".zarr", ".msgpack", ".pkl", ".pickle", ".zip", ".tar", ".gz"),
    *(".pt", ".pth", ".bin", ".ckpt", ".gguf", ".onnx"),
    *(".json", ".jsonl", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".feather"),
    *(".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".mp4", ".mkv", ".webm"),
)

# What reading a file of any content may raise.
_UNREADABLE = (OSError, SafetensorError, LookupError, ValueError, TypeError, AttributeError, RecursionError)


def checked_name(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file to write. Raises InputError for a suffix that names another format."""
    target = _path(path)
    suffix = target.suffix.lower()
    if suffix in OTHER_FORMATS:
        numpy = (
            ", or np.save(path, out.embeddings) in Python for the tokens alone" if suffix in (".npy", ".npz") else ""
        )
        raise InputError(f"{target}: tokens are written as safetensors, not {suffix}; name a .safetensors file{numpy}")
    return target


def save(path: str | os.PathLike[str], fields: Mapping[str, Any]) -> None:
    """Write the fields of an `Embeddings`, except hidden states and errors. Raises InputError if it cannot write."""
    target = checked_name(path)
    arrays, metadata = _content(fields)
    with whole_file(target) as draft:
        try:
            save_file(arrays, draft, metadata)
            with draft.open("rb+") as file:
                header = _sorted_header(file.read(int.from_bytes(file.read(LENGTH), "little")))
                file.seek(LENGTH)
                file.write(header)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def to_bytes(fields: Mapping[str, Any], more: Mapping[str, np.ndarray]) -> bytearray:
    """Return the file that `save` writes, with ``more`` tensors by name, which `load` leaves unread."""
    arrays, metadata = _content(fields)
    content = bytearray(serialized({**arrays, **more}, metadata))
    stop = LENGTH + int.from_bytes(content[:LENGTH], "little")
    content[LENGTH:stop] = _sorted_header(content[LENGTH:stop])
    return content


def _content(fields: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors and the metadata that make a file of the fields of an `Embeddings`."""
    named = {name: fields[name] for name in (TOKENS, GRID, SIZES)}
    named |= {f"{DEEPSTACK}.{i}": tokens for i, tokens in enumerate(fields[DEEPSTACK])}
    if fields[FRAMES]:
        named |= {FRAMES: np.concatenate(fields[FRAMES]), STAMPS: np.concatenate(fields[STAMPS])}
        named |= {SECONDS: fields[SECONDS], COUNTS: np.array([*map(len, fields[FRAMES])], np.int64)}
    metadata = dict(_escaped(*pair) for pair in fields["provenance"].items())
    metadata |= {MERGE_SIZE: str(fields[MERGE_SIZE]), SOURCES: json.dumps(fields[SOURCES])}
    if any(keys := list(map(text, fields["_keys"]))):
        metadata[KEYS] = json.dumps(keys)
    return {name: np.ascontiguousarray(array) for name, array in named.items()}, metadata


def _sorted_header(text: bytes | bytearray) -> bytes:
    """Sort the metadata in the header of a file: safetensors writes them in another order each time."""
    header = json.loads(text)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    ordered = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(len(text))
    if len(ordered) > len(text):  # the same text in another order, so this is another safetensors
        raise OSError(f"the header of {len(text)} bytes would grow to {len(ordered)}")
    return ordered


def load(path: str | os.PathLike[str], *, finite: bool = True) -> dict[str, Any]:
    """Read the fields of an `Embeddings` that `save` wrote. Raises InputError for any other file.

    Unless ``finite``, NaN and infinity are not looked for: a checksum will tell whether `save` wrote the tokens.
    """
    file_path = _path(path)
    name = shown(str(file_path))
    with _readable(name):
        tensors, metadata = _read(file_path)
    return from_tensors(tensors, metadata, name, finite=finite)


def from_tensors(
    tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str], name: str, *, finite: bool = True
) -> dict[str, Any]:
    """Return the fields of an `Embeddings` from the content of a file, ``name``, as `load`."""
    with _readable(name):
        merge_size, sources, keys, provenance = _parsed(dict(metadata))
        tokens, grid = tensors[TOKENS], tensors[GRID]
    deepstack = [tensors[key] for key in _deepstack_names(tensors)]
    check_shapes(tokens, deepstack, grid, merge_size, name)
    origins = _origins(sources, tensors.get(SIZES), grid, name)
    if finite:
        check_finite([tokens, *deepstack], patch_counts(grid) // merge_size**2, origins.get(SOURCES, ()), name)
    fields = {TOKENS: tokens, GRID: grid, MERGE_SIZE: merge_size, DEEPSTACK: deepstack, "provenance": provenance}
    return fields | _times(tensors, grid, name) | origins | _keys(keys, grid, name)


def read_header(path: str | os.PathLike[str]) -> tuple[int, str]:
    """Return the number of tokens and the name of the first item of a file that `save` wrote, from its header alone.

    Raises InputError for any other file.
    """
    file_path = _path(path)
    with _readable(shown(str(file_path))):
        open_regular(file_path).close()
        with safe_open(file_path, framework="numpy", backend="pread") as file:
            count, _ = file.get_slice(TOKENS).get_shape()
            sources = _parsed(dict(file.metadata() or {}))[1]
            return int(count), str(sources[0])


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Raise InputError for what reading a file of any content may raise."""
    try:
        yield
    except _UNREADABLE as error:
        raise InputError(f"{name} holds no embeddings: {shown(str(error))}") from error


def _path(path: str | os.PathLike[str]) -> Path:
    return expanded(str(given_path(path, "path")))


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read the tensors that an `Embeddings` has, by name, and the metadata; other tensors stay unread."""
    open_regular(path).close()
    with safe_open(path, framework="numpy", backend="pread") as file:
        present = set(file.keys())
        names = [TOKENS, GRID, *_deepstack_names(present)]
        names += [SIZES] if SIZES in present else []
        names += [FRAMES, STAMPS, SECONDS, COUNTS] if COUNTS in present else []
        return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})


def _deepstack_names(names: Collection[str]) -> list[str]:
    """Return the names of the deepstack arrays among those of tensors, in the order of the levels."""
    return [f"{DEEPSTACK}.{level}" for level in range(sum(name.startswith(f"{DEEPSTACK}.") for name in names))]


def _parsed(metadata: dict[str, str]) -> tuple[int, Any, Any, dict[str, str]]:
    """Return the merge size, the sources and keys, still unchecked, and the provenance that the metadata hold."""
    merge_size = MERGE_SIZES[metadata.pop(MERGE_SIZE)]
    sources = json.loads(metadata.pop(SOURCES, "[]"))
    keys = json.loads(metadata.pop(KEYS, "[]"))
    return merge_size, sources, keys, dict(_unescaped(*pair) for pair in metadata.items())


def split(array: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """Split an array into views of ``counts`` rows."""
    return np.split(array, np.cumsum(counts)[:-1]) if len(counts) else []


def _times(tensors: Mapping[str, np.ndarray], grid: np.ndarray, name: str) -> dict[str, Any]:
    """Return the frames and times of each item, if the file has them. Raises InputError if they do not fit."""
    if COUNTS not in tensors:
        return {}
    frames, stamps, seconds, counts = (tensors[key] for key in (FRAMES, STAMPS, SECONDS, COUNTS))
    steps = np.where(counts > 0, grid[:, 0], 0) if counts.shape == (len(grid),) else np.array([-1])
    kinds = [array.dtype.name for array in (frames, stamps, seconds, counts)]
    fits = seconds.shape == counts.shape and frames.shape == (counts.sum(),) and stamps.shape == (steps.sum(),)
    if kinds != ["int64", "float64", "float64", "int64"] or not fits or counts.min(initial=0) < 0:
        raise InputError(f"{name}: its frames and times do not fit the grid {grid.tolist()}")
    return {FRAMES: split(frames, counts), STAMPS: split(stamps, steps), SECONDS: seconds}


def _origins(sources: Any, sizes: np.ndarray | None, grid: np.ndarray, name: str) -> dict[str, Any]:
    """Return the sources and sizes of the items, if the file has them. Raises InputError if they do not fit."""
    fields: dict[str, Any] = {}
    if sources != []:
        if not isinstance(sources, list) or [type(each) for each in sources] != [str] * len(grid):
            raise InputError(f"{name}: its sources are not a list of {len(grid)} names")
        fields[SOURCES] = sources
    if sizes is not None:
        if sizes.dtype != np.int64 or sizes.shape != (len(grid), 2) or (sizes < 0).any():
            raise InputError(f"{name}: its sizes are {sizes.dtype} {sizes.shape}; expected ({len(grid)}, 2) in int64")
        fields[SIZES] = sizes
    return fields


def _keys(keys: Any, grid: np.ndarray, name: str) -> dict[str, Any]:
    """Return the keys of the items, if the file has them. Raises InputError if they do not fit."""
    if keys == []:
        return {}
    if not isinstance(keys, list) or len(keys) != len(grid) or not all(map(_is_key, keys)):
        raise InputError(f"{name}: its keys are not a list of {len(grid)} SHA-256 in hexadecimal")
    return {"_keys": keys}


def _is_key(key: object) -> bool:
    return isinstance(key, str) and TEXT.fullmatch(key) is not None


def _escaped(key: str, value: str) -> tuple[str, str]:
    """Return an entry of the provenance as metadata, which are UTF-8 text."""
    if not isinstance(key, str) or not isinstance(value, str):
        raise InputError(f"provenance has {key!r}: {value!r}; expected text")
    try:
        value.encode()
    except UnicodeEncodeError:
        return key + ESCAPED, json.dumps(value)
    return (key + ESCAPED, json.dumps(value)) if key.endswith(ESCAPED) else (key, value)


def _unescaped(key: str, value: str) -> tuple[str, str]:
    """Invert `_escaped`."""
    return (key.removesuffix(ESCAPED), json.loads(value)) if key.endswith(ESCAPED) else (key, value)
