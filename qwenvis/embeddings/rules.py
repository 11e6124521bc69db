"""The rules for the arrays of a result: dtypes, shapes, rows that fit the grid, finite values."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

import ml_dtypes
import numpy as np

from qwenvis.errors import InputError, quoted, shown
from qwenvis.io.arrays import dtype_name

DTYPES = {dtype.name: dtype for dtype in map(np.dtype, (np.float32, np.float16, ml_dtypes.bfloat16))}
BLOCK = 1 << 17  # entries that are checked at once: their bits and flags stay in a cache of the CPU


def dtype_named(dtype: object, choices: Collection[str]) -> str:
    """Return the choice that a caller means by a text or by a type of NumPy, ml_dtypes or PyTorch.

    Raises InputError for any other value.
    """
    name = dtype_name(dtype)
    if name not in choices:
        raise InputError(f"dtype is {quoted(dtype)}; expected one of {', '.join(choices)}")
    return name


def check_shapes(
    tokens: np.ndarray, deepstack: Sequence[np.ndarray], grid_thw: np.ndarray, merge_size: int, where: str
) -> None:
    """Raise InputError unless dtypes and shapes are those of a result; ``where`` begins the message."""
    if tokens.dtype not in DTYPES.values() or tokens.ndim != 2 or not tokens.shape[1]:
        expected = f"(tokens, width) in {', '.join(DTYPES)}"
        raise InputError(f"{where}: the tokens are {tokens.dtype} {tokens.shape}; expected {expected}")
    if grid_thw.dtype != np.int64 or grid_thw.ndim != 2 or grid_thw.shape[1] != 3:
        raise InputError(f"{where}: grid_thw is {grid_thw.dtype} {grid_thw.shape}; expected (items, 3) in int64")
    if not isinstance(merge_size, int | np.integer) or merge_size < 1:
        raise InputError(f"{where}: merge_size is {quoted(merge_size)}; expected an integer of at least 1")
    grid = grid_thw.tolist()
    check_grid(grid, merge_size, f"{where}: grid_thw")
    expected_rows = sum(map(math.prod, grid)) // merge_size**2
    if len(tokens) != expected_rows:
        raise InputError(f"{where}: {len(tokens)} tokens do not fit the grid, which has {expected_rows}")
    check_deepstack(tokens, deepstack, where)


def check_grid(grid: Iterable[Sequence[int]], merge_size: int, name: str) -> None:
    """Raise InputError unless every item has at least one temporal step and whole merge units."""
    for index, (t, h, w) in enumerate(grid):
        if min(t, h, w) < 1 or h % merge_size or w % merge_size:
            expected = f"t >= 1 and positive h and w that {merge_size} divides"
            raise InputError(f"{name}[{index}] is ({t}, {h}, {w}); expected {expected}")


def check_deepstack(tokens: np.ndarray, deepstack: Sequence[np.ndarray], where: str) -> None:
    """Raise InputError unless deepstack has the dtype and shape of the tokens."""
    for level, layer in enumerate(deepstack):
        if (layer.dtype, layer.shape) != (tokens.dtype, tokens.shape):
            got = f"deepstack {level} is {layer.dtype} {layer.shape}"
            raise InputError(f"{where}: {got}; expected {tokens.dtype} {tokens.shape}, as the tokens")


def check_width(width: int, levels: int, expected: int, where: str) -> None:
    """Raise InputError unless tokens of this width, with these levels of deepstack, are as wide as expected."""
    if width * (1 + levels) != expected:
        got = f"{width * (1 + levels)} wide" + (f", {width} times 1 + {levels} of deepstack" if levels else "")
        raise InputError(f"{where}: the tokens are {got}; expected {expected}: is this the tower of another model?")


def check_finite(arrays: Iterable[np.ndarray], counts: np.ndarray, sources: Sequence[str], where: str) -> None:
    """Raise InputError for NaN or infinity; the message names the item, of which ``counts`` has the number of rows."""
    for array in arrays:
        if found := first_not_finite(array):
            token = f"token {found[0]}, of {item_name(found[0], counts, sources)},"
            raise InputError(f"{where}: {token} has the value {array[found]}; encode the item again")


def first_not_finite(array: np.ndarray) -> tuple[int, int] | None:
    """Return the row and column of the first NaN or infinity; None if every entry is finite."""
    # NaN and infinity have all bits of the exponent set: one test for every dtype, without conversion or warnings.
    exponent = np.array(np.inf, array.dtype).view(f"u{array.itemsize}")
    step = max(1, BLOCK // array.shape[1])
    for first in range(0, len(array), step):
        found = (array[first : first + step].view(exponent.dtype) & exponent) == exponent
        if found.any():
            row, column = np.argwhere(found)[0].tolist()
            return first + row, column
    return None


def item_name(row: int, counts: np.ndarray, sources: Sequence[str]) -> str:
    """Return the name of the item that a row of the tokens belongs to, for a message."""
    item = int(np.searchsorted(np.cumsum(counts), row, side="right"))
    return f"item {item} ({shown(sources[item])})" if sources else f"item {item}"
