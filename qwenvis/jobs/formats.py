"""The formats of shards: safetensors, which `Embeddings.load` reads too, and Parquet for tables."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from qwenvis.checkpoints.shards import read_header
from qwenvis.checkpoints.stored import FLOATS
from qwenvis.embeddings import Embeddings
from qwenvis.embeddings.convert import arrow_columns
from qwenvis.embeddings.file import from_tensors
from qwenvis.errors import CheckpointError, InputError, shown
from qwenvis.jobs.inputs.containers import pyarrow

WORDS = FLOATS | {"F64": np.dtype("<f8"), "I64": np.dtype("<i8"), "U64": np.dtype("<u8")}


class ShardFormat(ABC):
    """A format of shards. Equal items give equal bytes.

    - ``name``: its name, which is also the suffix of its files.
    - ``dtypes``: the dtypes of tokens that it holds.
    """

    name: str
    dtypes: tuple[str, ...]

    @abstractmethod
    def write(self, path: Path, items: Embeddings) -> None:
        """Write items into a file. Raises InputError or OSError if the file cannot be written."""

    @abstractmethod
    def read(self, path: Path) -> Embeddings:
        """Return the items of a file. Raises InputError if it holds anything else."""


class Safetensors(ShardFormat):
    """One tensor with the tokens of all items, item after item, as `Embeddings.save` writes it."""

    name = "safetensors"
    dtypes = ("float32", "float16", "bfloat16")

    def write(self, path: Path, items: Embeddings) -> None:
        """Write items as `Embeddings.save`."""
        items.save(path)

    def read(self, path: Path) -> Embeddings:
        """Return items whose arrays are mapped."""
        return Embeddings(**from_tensors(*mapped(path), shown(str(path)), finite=False))


class Parquet(ShardFormat):
    """A row for each item: source, key, height, width, grid_thw, tokens; and frames and times, empty for stills.

    ``tokens`` is ``list<fixed_size_list<T>[W]>``, with deepstack side by side (`Embeddings.wide`).
    """

    name = "parquet"
    dtypes = ("float32", "float16")

    def write(self, path: Path, items: Embeddings) -> None:
        """Write items as rows, a row group for each: a reader of one item reads that item only."""
        arrow, parquet = pyarrow(str(path))
        stills: list[list[Any]] = [[]] * len(items)
        columns = {
            "source": [_utf8(source) for source in items.sources],
            **arrow_columns(items.keys, items.sizes, items.grid_thw, items.to_arrow(items.embeddings.dtype.name)),
            "frame_indices": arrow.array(items.frame_indices or stills, arrow.list_(arrow.int64())),
            "timestamps": arrow.array(items.timestamps or stills, arrow.list_(arrow.float64())),
            "second_per_grid_ts": items.second_per_grid_ts if items.frame_indices else np.zeros(len(items)),
        }
        told = {"merge_size": items.merge_size, "deepstack": len(items.deepstack), "provenance": items.provenance}
        table = arrow.table(columns).replace_schema_metadata({"qwenvis": json.dumps(told, sort_keys=True)})
        parquet.write_table(table, path, row_group_size=1, compression="none", use_dictionary=False)

    def read(self, path: Path) -> Embeddings:
        """Return items, read whole."""
        _, parquet = pyarrow(str(path))
        try:
            table = parquet.read_table(path, memory_map=True).combine_chunks()
            told = json.loads(table.schema.metadata[b"qwenvis"])
            tokens = table["tokens"].combine_chunks()
            width = tokens.type.value_type.list_size
            rows = tokens.flatten().flatten().to_numpy().reshape(-1, width)
        except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{shown(str(path))} holds no embeddings: {shown(str(error))}") from error
        embeddings, *deepstack = np.split(rows, 1 + told["deepstack"], axis=1)
        grid = table["grid_thw"].combine_chunks().flatten().to_numpy().reshape(-1, 3)
        fields = {
            "sources": table["source"].to_pylist(),
            "_keys": table["key"].to_pylist(),
            "sizes": np.stack([table["height"].to_numpy(), table["width"].to_numpy()], axis=1),
        }
        if any(frames := table["frame_indices"].to_pylist()):
            fields["frame_indices"] = [np.array(each, np.int64) for each in frames]
            fields["timestamps"] = [np.array(each, np.float64) for each in table["timestamps"].to_pylist()]
            fields["second_per_grid_ts"] = table["second_per_grid_ts"].to_numpy()
        made = {"merge_size": told["merge_size"], "provenance": told["provenance"], "deepstack": deepstack}
        return Embeddings(embeddings=embeddings, grid_thw=grid, **made, **fields)


FORMATS: dict[str, ShardFormat] = {each.name: each for each in (Safetensors(), Parquet())}


def mapped(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays of a safetensors file, mapped into memory, and its metadata. Raises InputError."""
    try:
        header = read_header(path)
        content = np.memmap(path, np.uint8, "r").view(np.ndarray)
        arrays = {
            each.name: content[each.offset : each.offset + each.nbytes].view(WORDS[each.dtype]).reshape(each.shape)
            for each in header.tensors.values()
        }
    except (CheckpointError, OSError, KeyError, ValueError) as error:
        raise InputError(f"{shown(str(path))} cannot be read: {shown(str(error))}") from error
    return arrays, dict(header.metadata)


def _utf8(source: str) -> str:
    """Return a name as UTF-8 can hold it: bytes of another encoding as hexadecimal escapes."""
    return source.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
