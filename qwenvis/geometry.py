"""Where is each patch? Everything that follows from ``grid_thw`` alone, in integers; and the rope tables.

Patches are in the order of ``pixel_values``: by item, by temporal step, by merge unit (row of units, column of units),
by row and column inside the unit. A merge unit is the merge_size x merge_size patches that become one token.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def coords(grid_thw: np.ndarray, merge_size: int) -> np.ndarray:
    """(row, column) of every patch, (patches, 2) int64, in the order of ``pixel_values``."""
    return np.concatenate([np.tile(_frame_coords(rows, columns, merge_size), (t, 1)) for t, rows, columns in grid_thw])


def _frame_coords(rows: int, columns: int, merge_size: int) -> np.ndarray:
    raster = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)
    units = raster.reshape(rows // merge_size, merge_size, columns // merge_size, merge_size, 2)
    return units.swapaxes(1, 2).reshape(-1, 2)


def item_bounds(grid_thw: np.ndarray) -> np.ndarray:
    """Cumulative patches of the items, (items + 1,) int64, starting with 0."""
    return np.concatenate([[0], np.cumsum(grid_thw.prod(axis=1))])


def groups(grid_thw: np.ndarray, budget: int) -> Iterator[slice]:
    """Runs of items within a budget of patches; an item above it is alone."""
    first, held = 0, 0
    for item, patches in enumerate(grid_thw.prod(axis=1).tolist()):
        if held and held + patches > budget:
            yield slice(first, item)
            first, held = item, 0
        held += patches
    if held:
        yield slice(first, len(grid_thw))


def frames(grid_thw: np.ndarray) -> np.ndarray:
    """Number of the temporal step, over all items, that each patch belongs to: (patches,) int64."""
    steps, rows, columns = grid_thw.T
    return np.repeat(np.arange(steps.sum()), np.repeat(rows * columns, steps))


def cu_seqlens(labels: np.ndarray) -> np.ndarray:
    """Cumulative lengths of the runs of equal labels, (runs + 1,) int32, starting with 0."""
    ends = np.flatnonzero(np.diff(labels)) + 1
    return np.concatenate([[0], ends, [len(labels)]]).astype(np.int32)


def window_labels(coords: np.ndarray, frames: np.ndarray, window: int) -> np.ndarray:
    """Number of the window of each patch, rising from window to window in raster order, frame after frame.

    ``window`` is the side of a window in patches. Windows at the right and lower edges are smaller.
    Equal to transformers get_window_index, which pads the grid to whole windows and takes the padding out again.
    """
    row, column = coords.T // window
    labels: np.ndarray = (frames * (row.max() + 1) + row) * (column.max() + 1) + column
    return labels


def rope(coords: np.ndarray, head_dim: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """(cos, sin) of each patch's angles, (patches, head_dim / 2) float32 each: rows first, then columns.

    Formula: transformers VisionRotaryEmbedding. Angles are float32, as there; their cos and sin are taken in float64
    and rounded, so that NumPy's choice of instructions cannot change the bits.
    """
    half = head_dim // 2
    exponents = (np.arange(0, half, 2, dtype=np.float32) / np.float32(half)).astype(np.float64)
    inv_freq = (1.0 / (theta**exponents).astype(np.float32)).astype(np.float32)
    angles = np.arange(coords.max() + 1, dtype=np.float32)[:, None] * inv_freq
    cos, sin = (np.ascontiguousarray(f(angles.astype(np.float64)), np.float32) for f in (np.cos, np.sin))
    return cos[coords].reshape(len(coords), half), sin[coords].reshape(len(coords), half)
