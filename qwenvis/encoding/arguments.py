"""Checks of the arguments of an encoder's methods other than images and videos."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qwenvis.embeddings.rules import check_grid
from qwenvis.errors import InputError, check_choice, quoted
from qwenvis.geometry import patch_count, patch_counts
from qwenvis.io import arrays
from qwenvis.models import Config

MAX_PATCHES = 2**31 - 1  # cu_seqlens are int32
CHECKED_ROWS = 4096  # rows that are checked for NaN at a time, so that the flags take little memory

_P = ParamSpec("_P")
_S = TypeVar("_S")
_T = TypeVar("_T")


def takes_one_list(method: Callable[Concatenate[_S, _P], _T]) -> Callable[Concatenate[_S, _P], _T]:
    """Decorate a method of an encoder: its TypeError for images passed as several arguments says to pass a list."""

    @wraps(method)
    def checked(self: _S, /, *args: _P.args, **options: _P.kwargs) -> _T:
        if len(args) > 1:
            name = method.__name__
            raise TypeError(f"{name}() takes all images as one argument, got {len(args)}: pass a list, {name}([a, b])")
        return method(self, *args, **options)

    return checked


def skip_errors(on_error: str) -> bool:
    """Return whether ``on_error`` is "skip". Raises InputError unless it is "raise" or "skip"."""
    check_choice(on_error, "on_error", ("raise", "skip"))
    return on_error == "skip"


def check_flag(value: object, name: str) -> None:
    """Raise InputError for an argument that is neither a bool nor a NumPy bool."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} is {quoted(value)}; expected True or False")


def checked_grid(grid_thw: ArrayLike, config: Config) -> NDArray[np.int64]:
    """Return ``grid_thw`` as (items, 3) int64, C-contiguous.

    Raises InputError unless every item has at least one temporal step and whole merge units.
    """
    grid = arrays.plain(grid_thw, "grid_thw")
    if grid.ndim != 2 or grid.shape[1] != 3 or (grid.size and grid.dtype.kind not in "iu"):
        expected = "expected integers (items, 3): temporal steps, rows, columns"
        raise InputError(f"grid_thw is {grid.dtype} {grid.shape}; {expected}")
    check_grid(grid.tolist(), config.spatial_merge_size, "grid_thw")
    if sum(math.prod(item) for item in grid.tolist()) > MAX_PATCHES:
        raise InputError(f"grid_thw has more than {MAX_PATCHES:,} patches in total")
    return np.ascontiguousarray(grid, np.int64).reshape(-1, 3)


def checked_pixel_values(pixel_values: ArrayLike, grid_thw: NDArray[np.int64], config: Config) -> NDArray[np.float32]:
    """Return ``pixel_values`` as (patches, C·T·p²) float32, C-contiguous; other float types are rounded to float32.

    If a patch has one frame (T = 1), the shape may also be (patches, C, p, p).

    Raises InputError for another shape, for another type, and for NaN or infinity.
    """
    values = arrays.plain(pixel_values, "pixel_values")
    c, t, h, w = config.kernel
    columns, patches = c * t * h * w, patch_count(grid_thw)
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
        raise InputError(f"pixel_values is {values.dtype}; expected floats, normalised as the checkpoint requires")
    for first in range(0, patches, CHECKED_ROWS):
        with np.errstate(over="ignore"):  # values beyond float32 become infinity, which is refused
            rows = values[first : first + CHECKED_ROWS].astype(np.float32, copy=False)
        if not np.isfinite(rows).all():
            row = first + int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
            item = int(np.searchsorted(np.cumsum(patch_counts(grid_thw)), row, side="right"))
            raise InputError(f"pixel_values has NaN or infinity in row {row}, of item {item}")
    return np.ascontiguousarray(values, np.float32)
