"""The arrays of a result in other types: other dtypes, tensors of PyTorch, arrays of Arrow, one vector an item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qwenvis.embeddings.rules import DTYPES, first_not_finite, item_name
from qwenvis.errors import InputError, PackageError

if TYPE_CHECKING:
    import pyarrow
    import torch

ROUNDED = "rounded_to"  # in the provenance
ARROW_DTYPES = ("float32", "float16")  # Arrow has no bfloat16
INT32 = np.iinfo(np.int32)  # the offsets of an Arrow list


def cast(array: np.ndarray, dtype: str, counts: np.ndarray, sources: Sequence[str]) -> np.ndarray:
    """Return finite rows in another dtype, rounded to nearest, ties to even.

    Raises InputError for a value that the dtype cannot hold; the message names the item, of which ``counts`` has the
    number of rows.
    """
    with np.errstate(over="ignore"):  # to infinity, which is refused
        out = array.astype(DTYPES[dtype])
    if found := first_not_finite(out):
        name = item_name(found[0], counts, sources)
        wider = "float32" if dtype == "bfloat16" else "bfloat16 or float32"
        value = f"token {found[0]}, of {name}, has the value {array[found]}"
        raise InputError(f"{value}, which is outside the range of {dtype}; use {wider}")
    return out


def rounded_provenance(provenance: Mapping[str, str], dtype: str) -> dict[str, str]:
    """Return the provenance of tokens that were rounded to a dtype."""
    before = provenance.get(ROUNDED)
    return {**provenance, ROUNDED: f"{before}, {dtype}" if before else dtype}


def to_torch(tokens: np.ndarray) -> torch.Tensor:
    """Return a tensor that shares the memory of the tokens, or of a copy where PyTorch cannot share it.

    Raises PackageError without PyTorch.
    """
    try:
        import torch
    except ImportError as error:
        raise PackageError(f"to_torch needs PyTorch, which is not installed: pip install torch ({error})") from error
    shared = np.require(tokens, requirements=["C", "W"])
    if tokens.dtype == DTYPES["bfloat16"]:  # PyTorch does not know the type of ml_dtypes
        return torch.from_numpy(shared.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(shared)


def to_arrow(tokens: np.ndarray, counts: np.ndarray) -> pyarrow.Array:
    """Return one list of tokens an item, float32 or float16, which shares the memory of contiguous tokens.

    Raises InputError for more tokens than a list holds, and PackageError without pyarrow.
    """
    pyarrow = import_pyarrow("to_arrow")
    offsets = np.concatenate([[0], np.cumsum(counts)])
    if offsets[-1] > INT32.max:
        raise InputError(f"an Arrow list holds at most {INT32.max:,} tokens; got {offsets[-1]:,}: convert out[:n]")
    values = pyarrow.array(np.ascontiguousarray(tokens).reshape(-1))
    rows = pyarrow.FixedSizeListArray.from_arrays(values, tokens.shape[1])
    return pyarrow.ListArray.from_arrays(pyarrow.array(offsets, pyarrow.int32()), rows)


def arrow_columns(
    keys: Sequence[str], sizes: np.ndarray, grid_thw: np.ndarray, tokens: pyarrow.Array
) -> dict[str, pyarrow.Array]:
    """Return the columns of a table with a row for each item. Raises PackageError without pyarrow."""
    pyarrow = import_pyarrow("a table of items")
    heights, widths = sizes.reshape(-1, 2).astype(np.int64).T
    return {
        "key": pyarrow.array(keys, "string"),
        "height": pyarrow.array(heights),
        "width": pyarrow.array(widths),
        "grid_thw": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(grid_thw.reshape(-1)), 3),
        "tokens": tokens,
    }


def import_pyarrow(what: str) -> Any:
    """Return pyarrow. Raises PackageError, with the name of what needs it, where it is not installed."""
    try:
        import pyarrow
    except ImportError as error:
        raise PackageError(
            f"{what} needs pyarrow, which is not installed: pip install 'qwenvis[arrow]' ({error})"
        ) from error
    return pyarrow


def mean_pool(tokens: np.ndarray, counts: np.ndarray, normalize: bool) -> np.ndarray:
    """Return the mean of the tokens of each item, (items, width) float32; sums are float64."""
    bounds = np.concatenate([[0], np.cumsum(counts)]).tolist()
    means = np.empty((len(counts), tokens.shape[1]), np.float64)
    for mean, first, stop in zip(means, bounds, bounds[1:], strict=False):
        np.mean(tokens[first:stop], axis=0, dtype=np.float64, out=mean)
    if normalize:
        norms = np.linalg.norm(means, axis=1, keepdims=True)
        np.divide(means, norms, out=means, where=norms > 0)
    return means.astype(np.float32)
