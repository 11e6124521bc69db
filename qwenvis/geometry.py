"""Geometry of the patches: all integers that follow from ``grid_thw`` alone, and the rope tables.

Patches are in the order of ``pixel_values``: by item, by temporal step, by merge unit (row of units, column of units),
by row and column inside the unit. A merge unit is the merge_size x merge_size patches that become one token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

# Most patches of one forward pass, unless a single temporal step has more: enough for products at full speed, and a
# workspace of about 150 MB
PATCH_BUDGET = 4096

# Temporal steps of one item: (index of the item, first step, last step + 1)
Span = tuple[int, int, int]

# Along one axis of a learned grid of positions, for each of n points between them: the indices of the positions that
# are summed, and their weights. Two arrays (n, taps), integers and floats.
Interpolation = tuple[np.ndarray, np.ndarray]
# mode(size, side) -> the interpolation of ``side`` learned positions at ``size`` points
InterpolationMode = Callable[[int, int], Interpolation]


def coords(grid_thw: np.ndarray, merge_size: int) -> np.ndarray:
    """Row and column of each patch, (patches, 2) int64, in the order of ``pixel_values``."""
    return np.concatenate([np.tile(_frame_coords(rows, columns, merge_size), (t, 1)) for t, rows, columns in grid_thw])


def _frame_coords(rows: int, columns: int, merge_size: int) -> np.ndarray:
    raster = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)
    units = raster.reshape(rows // merge_size, merge_size, columns // merge_size, merge_size, 2)
    return units.swapaxes(1, 2).reshape(-1, 2)


def raster_order(grid_thw: np.ndarray, merge_size: int) -> np.ndarray:
    """Index of each patch in the order by frame, row and column, without merge units: (patches,) int64."""
    steps, rows, columns = grid_thw.T
    first = np.concatenate([[0], np.cumsum(np.repeat(rows * columns, steps))])[frames(grid_thw)]
    row, column = coords(grid_thw, merge_size).T
    order: np.ndarray = first + row * np.repeat(columns, patch_counts(grid_thw)) + column
    return order


def patch_counts(grid_thw: np.ndarray) -> np.ndarray:
    """Return the number of patches of each item, (items,) int64."""
    counts: np.ndarray = grid_thw.prod(axis=1)
    return counts


def patch_count(grid_thw: np.ndarray) -> int:
    """Return the number of patches of all items, the rows of ``pixel_values``."""
    return int(patch_counts(grid_thw).sum())


def item_bounds(grid_thw: np.ndarray) -> np.ndarray:
    """Cumulative patches of the items, (items + 1,) int64, starting with 0."""
    return np.concatenate([[0], np.cumsum(patch_counts(grid_thw))])


def step_bounds(grid_thw: np.ndarray) -> np.ndarray:
    """Cumulative patches of the temporal steps of all items, (steps + 1,) int64, starting with 0."""
    return np.concatenate([[0], np.cumsum(np.repeat(grid_thw[:, 1:].prod(axis=1), grid_thw[:, 0]))])


def extent(grid_thw: np.ndarray) -> tuple[int, int, int]:
    """Return the patches of all items, the patches of their largest frame, and the frames of all items."""
    steps, rows, columns = grid_thw.T
    return patch_count(grid_thw), int((rows * columns).max(initial=0)), int(steps.sum())


def split_steps(grid_thw: np.ndarray, budget: int) -> Iterator[list[Span]]:
    """Split the temporal steps of all items, in order, into lists of spans of at most ``budget`` patches each.

    A step of more than ``budget`` patches has a list of its own. No patch attends to another step, so each list can go
    through the tower in a forward pass of its own.
    """
    spans: list[Span] = []
    held = 0
    for item, (steps, rows, columns) in enumerate(grid_thw.tolist()):
        first = 0
        while first < steps:
            fit = max((budget - held) // (rows * columns), 0 if spans else 1)
            if fit:
                stop = min(steps, first + fit)
                spans.append((item, first, stop))
                held += (stop - first) * rows * columns
                first = stop
            else:
                yield spans
                spans, held = [], 0
    if spans:
        yield spans


def span_grid(grid_thw: np.ndarray, spans: Sequence[Span]) -> np.ndarray:
    """Return the ``grid_thw`` of the spans alone, (spans, 3) int64."""
    return np.array([(stop - first, *grid_thw[item, 1:]) for item, first, stop in spans], np.int64).reshape(-1, 3)


def frames(grid_thw: np.ndarray) -> np.ndarray:
    """Number of the temporal step of each patch, counted over all items: (patches,) int64."""
    steps, rows, columns = grid_thw.T
    return np.repeat(np.arange(steps.sum()), np.repeat(rows * columns, steps))


def cu_seqlens(labels: np.ndarray) -> np.ndarray:
    """Cumulative lengths of the runs of equal labels, (runs + 1,) int32, starting with 0."""
    ends = np.flatnonzero(np.diff(labels)) + 1
    return np.concatenate([[0], ends, [len(labels)]]).astype(np.int32)


def window_labels(coords: np.ndarray, frames: np.ndarray, window: int) -> np.ndarray:
    """Label of the window of each patch, (patches,) int64; labels rise by frame, then in raster order of the windows.

    ``window`` is the side of a window in patches. Windows at the right and lower edges are smaller.
    The windows are those of transformers get_window_index, which pads the grid and removes the padding again.
    """
    row, column = coords.T // window
    labels: np.ndarray = (frames * (row.max() + 1) + row) * (column.max() + 1) + column
    return labels


def rope(coords: np.ndarray, head_dim: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of each patch's angles, (patches, head_dim / 2) float32 each: rows first, then columns.

    Formula: transformers VisionRotaryEmbedding. Angles are float32, as in transformers. Their cosines and sines are
    computed in float64 and rounded, so that NumPy's choice of instructions cannot change the bits.
    """
    half = head_dim // 2
    exponents = (np.arange(0, half, 2, dtype=np.float32) / np.float32(half)).astype(np.float64)
    inv_freq = (1.0 / (theta**exponents).astype(np.float32)).astype(np.float32)
    angles = np.arange(coords.max() + 1, dtype=np.float32)[:, None] * inv_freq
    cos, sin = (np.ascontiguousarray(f(angles.astype(np.float64)), np.float32) for f in (np.cos, np.sin))
    return cos[coords].reshape(len(coords), half), sin[coords].reshape(len(coords), half)


def interpolate_pos_embed(
    grid_thw: np.ndarray, merge_size: int, side: int, mode: InterpolationMode
) -> tuple[Interpolation, Interpolation]:
    """Return the indices and weights that interpolate a ``side`` x ``side`` grid of position embeddings at each patch.

    The first pair is that of the rows, the second of the columns: each (patches, taps), int32 and float32.
    """
    row, column = coords(grid_thw, merge_size).T
    _, heights, widths = grid_thw.T
    counts = patch_counts(grid_thw)
    return _at_patches(row, heights, counts, side, mode), _at_patches(column, widths, counts, side, mode)


def _at_patches(
    place: np.ndarray, sizes: np.ndarray, counts: np.ndarray, side: int, mode: InterpolationMode
) -> Interpolation:
    """Interpolation at each patch's ``place`` along an axis: (items,) ``sizes`` of the axes, ``counts`` of patches."""
    index, weight = (np.concatenate(parts) for parts in zip(*(mode(int(size), side) for size in sizes), strict=True))
    row = place + np.repeat(np.cumsum([0, *sizes[:-1]]), counts)
    return index.astype(np.int32)[row], weight.astype(np.float32)[row]


def bilinear_align_corners(size: int, side: int) -> Interpolation:
    """Interpolate linearly, with two taps; the first points of both axes coincide, and so do the last points.

    Formula: transformers get_vision_interpolation_indices_and_weights, bilinear with align_corners, in float32.
    """
    return _linear(np.arange(size, dtype=np.float32) * np.float32(side - 1) / np.float32(max(size - 1, 1)), side)


def bilinear(size: int, side: int) -> Interpolation:
    """Interpolate linearly, with two taps; points are centres of cells, and both axes have the same length.

    Formula: transformers get_vision_interpolation_indices_and_weights, bilinear without align_corners, in float32.
    """
    centres = np.arange(size, dtype=np.float32) + np.float32(0.5)
    return _linear(centres * np.float32(side) / np.float32(size) - np.float32(0.5), side)


def _linear(at: np.ndarray, side: int) -> Interpolation:
    first, taps = np.floor(at), np.arange(2)
    weight = np.maximum(1 - np.abs(at[:, None] - first[:, None] - taps.astype(np.float32)), np.float32(0))
    return np.clip(first.astype(np.int64)[:, None] + taps, 0, side - 1), weight


def bicubic(size: int, side: int) -> Interpolation:
    """Interpolate with the four taps of Keys' cubic, A = -0.75; points as in `bilinear`, with the edges repeated.

    Formula: torch.nn.functional.grid_sample, bicubic with border padding, as transformers Glm4vVisionEmbeddings calls
    it, with points from -1 to 1 in float32. Keys 1981, "Cubic convolution interpolation for digital image processing".
    """
    place = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size) * np.float32(2) - np.float32(1)
    at = ((place.astype(np.float64) + 1) * side - 1) / 2
    first, taps, a = np.floor(at), np.arange(-1, 3), -0.75
    x = np.abs(at[:, None] - first[:, None] - taps)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.clip(first.astype(np.int64)[:, None] + taps, 0, side - 1), np.where(x <= 1, near, far)
