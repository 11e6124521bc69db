"""The file of an `Embeddings`: its fields as safetensors, which appear whole or not at all."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from qwenvis.checkpoints.files import given_path
from qwenvis.errors import InputError, shown
from qwenvis.io.files import open_regular

TOKENS, GRID, SIZES, DEEPSTACK = "embeddings", "grid_thw", "sizes", "deepstack"
# Of videos, all items joined; as many frames of each item as the last says.
FRAMES, STAMPS, SECONDS, COUNTS = "frame_indices", "timestamps", "second_per_grid_ts", "frame_counts"
# In the metadata, beside the provenance. A value of it that is no UTF-8 text (a path with bytes of another encoding)
# is written as JSON in ASCII, under its name with this suffix.
MERGE_SIZE, SOURCES, ESCAPED = "merge_size", "sources", ".json"
MERGE_SIZES = {str(size): size for size in range(1, 17)}  # as a file writes them

# Suffixes that name another format than safetensors: of arrays, of checkpoints, of tables, of pictures.
OTHER_FORMATS = (
    *(".npy", ".npz", ".h5", ".hdf5", ".mat", ".zarr", ".msgpack", ".pkl", ".pickle", ".zip", ".tar", ".gz"),
    *(".pt", ".pth", ".bin", ".ckpt", ".gguf", ".onnx"),
    *(".json", ".jsonl", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".feather"),
    *(".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".mp4", ".mkv", ".webm"),
)


def checked_name(path: str | os.PathLike[str]) -> Path:
    """The path of a file to write. Raises InputError for a suffix that names another format."""
    target = given_path(path, "path")
    suffix = target.suffix.lower()
    if suffix in OTHER_FORMATS:
        numpy = (
            ", or np.save(path, out.embeddings) in Python for the tokens alone" if suffix in (".npy", ".npz") else ""
        )
        raise InputError(f"{target}: tokens are written as safetensors, not {suffix}; name a .safetensors file{numpy}")
    return target


def save(path: str | os.PathLike[str], fields: Mapping[str, Any]) -> None:
    """Write the fields of an `Embeddings`, except hidden states and errors. Raises InputError where it cannot."""
    target = checked_name(path)
    named = {name: fields[name] for name in (TOKENS, GRID, SIZES)}
    named |= {f"{DEEPSTACK}.{i}": tokens for i, tokens in enumerate(fields[DEEPSTACK])}
    if fields[FRAMES]:
        named |= {FRAMES: np.concatenate(fields[FRAMES]), STAMPS: np.concatenate(fields[STAMPS])}
        named |= {SECONDS: fields[SECONDS], COUNTS: np.array([*map(len, fields[FRAMES])], np.int64)}
    arrays = {name: np.ascontiguousarray(array) for name, array in named.items()}
    metadata = dict(_escaped(*pair) for pair in fields["provenance"].items())
    metadata |= {MERGE_SIZE: str(fields[MERGE_SIZE]), SOURCES: json.dumps(fields[SOURCES])}
    with whole_file(target) as draft:
        save_file(arrays, draft, metadata)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the fields of an `Embeddings` that `save` wrote. Raises InputError for any other file."""
    file_path = given_path(path, "path")
    name = shown(str(file_path))
    try:
        open_regular(file_path).close()
        with safe_open(file_path, framework="numpy", backend="pread") as file:
            metadata = dict(file.metadata() or {})
            keys = set(file.keys())
            tokens, grid = file.get_tensor(TOKENS), file.get_tensor(GRID)
            count = sum(key.startswith(f"{DEEPSTACK}.") for key in keys)
            deepstack = [file.get_tensor(f"{DEEPSTACK}.{i}") for i in range(count)]
            times = {key: file.get_tensor(key) for key in (FRAMES, STAMPS, SECONDS, COUNTS) if COUNTS in keys}
            sizes = file.get_tensor(SIZES) if SIZES in keys else None
        merge_size = MERGE_SIZES[metadata.pop(MERGE_SIZE)]
        sources = json.loads(metadata.pop(SOURCES, "[]"))
        provenance = dict(_unescaped(*pair) for pair in metadata.items())
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{name} holds no embeddings: {shown(str(error))}") from error
    _check_tokens(tokens, grid, merge_size, name)
    if any((array.dtype, array.shape) != (tokens.dtype, tokens.shape) for array in deepstack):
        raise InputError(f"{name} holds deepstack arrays of another type or shape than its tokens {tokens.shape}")
    if not all(np.isfinite(array).all() for array in (tokens, *deepstack)):
        raise InputError(f"{name} holds NaN or infinity among its tokens; encode them again")
    fields = {TOKENS: tokens, GRID: grid, MERGE_SIZE: merge_size, DEEPSTACK: deepstack, "provenance": provenance}
    return fields | _times(times, grid, name) | _origins(sources, sizes, grid, name)


def split(array: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """Views of as many rows as each count says."""
    return np.split(array, np.cumsum(counts)[:-1]) if len(counts) else []


def _check_tokens(tokens: np.ndarray, grid: np.ndarray, merge_size: int, name: str) -> None:
    if tokens.dtype != np.float32 or tokens.ndim != 2 or grid.dtype != np.int64 or grid.shape[1:] != (3,):
        got = f"{tokens.dtype} {tokens.shape} and {grid.dtype} {grid.shape}"
        raise InputError(f"{name} holds {got}; expected tokens (m, d) in float32 and a grid (items, 3) in int64")
    patches, unit = [math.prod(item) for item in grid.tolist()], merge_size**2
    if (grid < 1).any() or any(count % unit for count in patches) or sum(patches) != len(tokens) * unit:
        raise InputError(f"{name}: {len(tokens)} tokens do not fit the grid {grid.tolist()}")


def _times(arrays: dict[str, np.ndarray], grid: np.ndarray, name: str) -> dict[str, Any]:
    """The frames and times of each item, as a file has them. Raises InputError where they do not fit the grid."""
    if not arrays:
        return {}
    frames, stamps, seconds, counts = (arrays[key] for key in (FRAMES, STAMPS, SECONDS, COUNTS))
    steps = np.where(counts > 0, grid[:, 0], 0) if counts.shape == (len(grid),) else np.array([-1])
    kinds = [array.dtype.name for array in (frames, stamps, seconds, counts)]
    fits = seconds.shape == counts.shape and frames.shape == (counts.sum(),) and stamps.shape == (steps.sum(),)
    if kinds != ["int64", "float64", "float64", "int64"] or not fits or counts.min(initial=0) < 0:
        raise InputError(f"{name}: its frames and times do not fit the grid {grid.tolist()}")
    return {FRAMES: split(frames, counts), STAMPS: split(stamps, steps), SECONDS: seconds}


def _origins(sources: Any, sizes: np.ndarray | None, grid: np.ndarray, name: str) -> dict[str, Any]:
    """The sources and sizes of the items, where a file has them. Raises InputError where they do not fit the grid."""
    fields: dict[str, Any] = {}
    if sources != []:
        if not isinstance(sources, list) or [type(each) for each in sources] != [str] * len(grid):
            raise InputError(f"{name}: its sources are no list of {len(grid)} names")
        fields[SOURCES] = sources
    if sizes is not None:
        if sizes.dtype != np.int64 or sizes.shape != (len(grid), 2) or (sizes < 0).any():
            raise InputError(f"{name}: its sizes are {sizes.dtype} {sizes.shape}; expected ({len(grid)}, 2) in int64")
        fields[SIZES] = sizes
    return fields


def _escaped(key: str, value: str) -> tuple[str, str]:
    """An entry of the provenance as the metadata have it, which are text in UTF-8."""
    if not isinstance(key, str) or not isinstance(value, str):
        raise InputError(f"provenance has {key!r}: {value!r}; expected text")
    try:
        value.encode()
    except UnicodeEncodeError:
        return key + ESCAPED, json.dumps(value)
    return (key + ESCAPED, json.dumps(value)) if key.endswith(ESCAPED) else (key, value)


def _unescaped(key: str, value: str) -> tuple[str, str]:
    """The inverse of `_escaped`."""
    return (key.removesuffix(ESCAPED), json.loads(value)) if key.endswith(ESCAPED) else (key, value)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A draft beside ``target`` that takes its place after the block, or is gone if the block fails.

    Its name is short, whatever the target's is. Raises InputError where the target cannot be written.
    """
    draft = target.parent / f".{secrets.token_hex(8)}"
    try:
        if target.exists() and not target.is_file():
            raise InputError(f"{target} cannot be written: it is no regular file")
        draft.touch()
        mode = draft.stat().st_mode  # as the umask asks; safetensors makes its files private
        yield draft
        draft.chmod(mode)
        draft.replace(target)
    except InputError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{shown(str(target))} cannot be written: {shown(str(error))}") from error
    finally:
        with suppress(OSError, ValueError):  # ValueError: a path with a NUL
            draft.unlink(missing_ok=True)
