"""What callers hand to the tower, checked before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qwenvis.errors import InputError, quoted
from qwenvis.io import arrays
from qwenvis.models import Config

MOST_PATCHES = 2**31 - 1  # cu_seqlens are int32
CHECKED_ROWS = 4096  # looked at together for NaN: the flags of these stay small


@dataclass(frozen=True, eq=False)
class Batch:
    """Preprocessed images, as transformers' processors return them; ``encoder(*batch)`` encodes them.

    ``pixel_values`` (patches, C·T·p²) float32, rows in merge-block order; ``grid_thw`` (items, 3) int64.
    """

    pixel_values: NDArray[np.float32]
    grid_thw: NDArray[np.int64]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Both, in the order of the encoder's arguments."""
        return iter((self.pixel_values, self.grid_thw))


def check_flag(value: object, name: str) -> None:
    """Raise InputError for an argument that is not True or False, of Python or of NumPy."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} is {quoted(value)}; expected True or False")


def checked_grid(grid_thw: ArrayLike, config: Config) -> NDArray[np.int64]:
    """``grid_thw`` as (items, 3) int64, C-contiguous.

    Raises InputError unless every item has at least one frame and whole merge units.
    """
    grid = arrays.plain(grid_thw, "grid_thw")
    if grid.ndim != 2 or grid.shape[1] != 3 or (grid.size and grid.dtype.kind not in "iu"):
        expected = "expected integers (items, 3): frames / 2, rows, columns"
        raise InputError(f"grid_thw is {grid.dtype} {grid.shape}; {expected}")
    merge = config.spatial_merge_size
    for i, (t, h, w) in enumerate(grid.tolist()):
        if min(t, h, w) < 1 or h % merge or w % merge:
            raise InputError(
                f"grid_thw[{i}] is ({t}, {h}, {w}); expected t >= 1 and positive h and w that {merge} divides"
            )
    if sum(math.prod(item) for item in grid.tolist()) > MOST_PATCHES:
        raise InputError(f"grid_thw has more than {MOST_PATCHES:,} patches in all")
    return np.ascontiguousarray(grid, np.int64).reshape(-1, 3)


def checked_pixel_values(pixel_values: ArrayLike, grid_thw: NDArray[np.int64], config: Config) -> NDArray[np.float32]:
    """``pixel_values`` as (patches, C·T·p²) float32, C-contiguous; other float types are rounded to it.

    Where a patch is one frame, its axes (C, p, p) may be apart.

    Raises InputError for another shape, for what is no float, and for NaN or infinity.
    """
    values = arrays.plain(pixel_values, "pixel_values")
    c, t, h, w = config.kernel
    columns, patches = c * t * h * w, int(grid_thw.prod(axis=1).sum())
    if values.shape[1:] == (c, h, w) and t == 1:
        values = values.reshape(len(values), columns)  # as transformers' PaddleOCRVLImageProcessor returns them
    if values.ndim != 2:
        raise InputError(f"pixel_values is {values.shape}; expected (patches, {columns})")
    if values.shape[1] != columns:
        made = f"this model needs {columns} ({c} x {t} x {h} x {w})"
        raise InputError(f"pixel_values has {values.shape[1]} columns; {made}")
    if len(values) != patches:
        raise InputError(f"pixel_values has {len(values)} rows; grid_thw {grid_thw.tolist()} adds up to {patches}")
    if values.dtype.kind != "f" and values.dtype.name != "bfloat16":
        raise InputError(f"pixel_values is {values.dtype}; expected floats, normalised as the checkpoint asks")
    for first in range(0, patches, CHECKED_ROWS):
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, and is refused as such
            rows = values[first : first + CHECKED_ROWS].astype(np.float32, copy=False)
        if not np.isfinite(rows).all():
            row = first + int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
            item = int(np.searchsorted(np.cumsum(grid_thw.prod(axis=1)), row, side="right"))
            raise InputError(f"pixel_values has NaN or infinity in row {row}, of item {item}")
    return np.ascontiguousarray(values, np.float32)
