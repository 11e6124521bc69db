"""Where is each patch: coords, segments, windows and angles against the reference, on grids of every kind."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made.arrays import assert_same_bits
from oracle import reference
from qwenvis import geometry

# Not square, wider than a window, of several frames, two of a kind, one token, a strip, edges of every remainder.
GRIDS = [
    [(1, 2, 2)],
    [(1, 4, 6)],
    [(1, 2, 200)],
    [(1, 200, 2)],
    [(3, 10, 14)],
    [(1, 8, 8), (1, 8, 8)],
    [(1, 16, 24), (2, 6, 4), (1, 2, 2), (4, 10, 18)],
    [(2, 18, 34), (1, 6, 10)],
]
every_grid = pytest.mark.parametrize("grids", GRIDS, ids=str)


def any_grids(merge_size):
    side = st.integers(1, 9).map(lambda blocks: blocks * merge_size)
    return st.lists(st.tuples(st.integers(1, 3), side, side), min_size=1, max_size=4)


def of(grids):
    return np.array(grids, np.int64)


@pytest.mark.parametrize("merge_size", [1, 2, 3])
def test_coords(merge_size):
    @given(grids=any_grids(merge_size))
    def check(grids):
        got = geometry.coords(of(grids), merge_size)
        assert got.dtype == np.int64
        np.testing.assert_array_equal(got, reference.coords(grids, merge_size))

    check()


@every_grid
def test_coords_of_known_grids(grids):
    np.testing.assert_array_equal(geometry.coords(of(grids), 2), reference.coords(grids, 2))


def test_bounds_of_items_and_of_their_steps():
    grid = np.array([[2, 4, 6], [1, 2, 2], [3, 2, 4]])
    assert geometry.item_bounds(grid).tolist() == [0, 48, 52, 76]
    assert geometry.step_bounds(grid).tolist() == [0, 24, 48, 52, 60, 68, 76]
    assert geometry.step_bounds(grid[:0]).tolist() == [0]


def test_coords_go_through_a_merge_unit_first():
    want = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3)]
    assert geometry.coords(of([(1, 2, 4)]), 2).tolist() == [list(place) for place in want]


@given(grids=any_grids(2))
def test_frames_and_items(grids):
    frames = geometry.frames(of(grids))
    lengths = [rows * columns for t, rows, columns in grids for _ in range(t)]
    np.testing.assert_array_equal(frames, np.repeat(np.arange(len(lengths)), lengths))
    bounds = geometry.item_bounds(of(grids))
    assert bounds.tolist() == [0, *np.cumsum([t * rows * columns for t, rows, columns in grids]).tolist()]


@given(grids=any_grids(2))
def test_segments_of_frames(grids):
    got = geometry.cu_seqlens(geometry.frames(of(grids)))
    assert got.dtype == np.int32
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, reference.frame_cu_seqlens(grids))


@pytest.mark.parametrize(
    ("labels", "want"),
    [([7], [0, 1]), ([1, 1, 1], [0, 3]), ([0, 1, 2], [0, 1, 2, 3]), ([5, 5, 0, 0, 0, 5], [0, 2, 5, 6])],
)
def test_segments_are_runs_of_equal_labels(labels, want):
    assert geometry.cu_seqlens(np.array(labels)).tolist() == want


def window_order(grids, merge_size, side):
    """Order of the merge units and cu_seqlens, from the labels; ``side`` of a window in merge units."""
    grid_thw = of(grids)
    places = geometry.coords(grid_thw, merge_size)
    labels = geometry.window_labels(places, geometry.frames(grid_thw), side * merge_size)
    order, unit = np.argsort(labels, kind="stable"), merge_size**2
    assert (order.reshape(-1, unit) == order[::unit, None] + np.arange(unit)).all(), "a merge unit is torn apart"
    return order[::unit] // unit, geometry.cu_seqlens(np.sort(labels))


def check_windows(grids, merge_size, side):
    order, cu_seqlens = window_order(grids, merge_size, side)
    want_order, want_cu_seqlens = reference.window_order(grids, merge_size, side)
    np.testing.assert_array_equal(order, want_order)
    np.testing.assert_array_equal(cu_seqlens, want_cu_seqlens)


@every_grid
@pytest.mark.parametrize("side", [1, 2, 4, 5])
def test_windows_of_known_grids(grids, side):
    check_windows(grids, 2, side)


@given(grids=any_grids(2), side=st.integers(1, 10))
def test_windows(grids, side):
    check_windows(grids, 2, side)


@given(grids=any_grids(2), side=st.integers(1, 6))
def test_window_never_holds_two_frames(grids, side):
    grid_thw = of(grids)
    frames = geometry.frames(grid_thw)
    labels = geometry.window_labels(geometry.coords(grid_thw, 2), frames, 2 * side)
    assert all(len(set(frames[labels == label])) == 1 for label in np.unique(labels))


@pytest.mark.parametrize("head_dim", [64, 72, 80, 128, 8])
@every_grid
def test_angles(grids, head_dim):
    """The bits of the reference's float64 cos and sin, rounded once."""
    places = geometry.coords(of(grids), 2)
    got, want = geometry.rope(places, head_dim, 10000.0), reference.rope_table(places, head_dim)
    for g, w in zip(got, want, strict=True):
        assert g.flags.c_contiguous
        assert_same_bits(g, w.astype(np.float32))


@pytest.mark.parametrize("theta", [100.0, 1e6])
def test_angles_of_another_theta_far_out(theta):
    places = np.array([[0, 0], [511, 3], [3, 511], [2000, 1999]])
    for g, w in zip(geometry.rope(places, 80, theta), reference.rope_table(places, 80, theta), strict=True):
        assert_same_bits(g, w.astype(np.float32))


def test_angles_follow_their_coords():
    """In any order: a table for permuted coords is the permuted table."""
    places = geometry.coords(of([(1, 6, 10)]), 2)
    order = np.random.default_rng(0).permutation(len(places))
    for whole, part in zip(geometry.rope(places, 72, 1e4), geometry.rope(places[order], 72, 1e4), strict=True):
        assert_same_bits(part, whole[order])


def test_rows_come_before_columns():
    cos, sin = geometry.rope(np.array([[1, 0], [0, 1]]), 8, 10000.0)
    one = np.sin([1.0, np.float32(0.01)]).astype(np.float32)
    assert_same_bits(sin, np.array([[*one, 0, 0], [0, 0, *one]], np.float32))
    assert (cos[0, 2:] == 1).all()
    assert (cos[1, :2] == 1).all()


# Learned positions.


def dense(size, side, index, weight):
    """How much each place of a learned axis has in each place of a grid's: (size, side)."""
    out = np.zeros((size, side))
    for tap in range(index.shape[1]):
        np.add.at(out, (np.arange(size), index[:, tap]), weight[:, tap].astype(np.float64))
    return out


@pytest.mark.parametrize(
    ("axis", "places", "kernel"),
    [
        (geometry.bilinear_align_corners, reference.corners, reference.hat),
        (geometry.bilinear, reference.centres, reference.hat),
        (geometry.bicubic, reference.sampled_centres, reference.keys),
    ],
    ids=["bilinear_align_corners", "bilinear", "bicubic"],
)
@pytest.mark.parametrize("side", [1, 2, 6, 12, 24, 27, 48])
def test_interpolation_of_an_axis(axis, places, kernel, side):
    for size in (1, 2, 3, 6, 7, 24, 47, 48, 49, 400):
        got = dense(size, side, *axis(size, side))
        want = dense(size, side, *reference.taps(places(size, side), side, kernel))
        assert np.abs(got - want).max() < 1e-12
        assert np.abs(got.sum(axis=1) - 1).max() < 1e-6


@every_grid
@pytest.mark.parametrize("merge_size", [1, 2])
def test_blend_of_every_patch(grids, merge_size):
    """Of each item by its own size, the same in every frame."""
    rows, columns = geometry.interpolate_pos_embed(of(grids), merge_size, 12, geometry.bilinear_align_corners)
    at = reference.coords(grids, merge_size)
    first = 0
    for t, height, width in grids:
        for patch in range(first, first := first + t * height * width):
            for axis, place, size in ((rows, at[patch, 0], height), (columns, at[patch, 1], width)):
                index, weight = geometry.bilinear_align_corners(size, 12)
                assert axis[0][patch].tolist() == index[place].tolist()
                assert axis[1][patch].tolist() == weight[place].tolist()
    assert [part.dtype for part in (*rows, *columns)] == [np.int32, np.float32] * 2


@every_grid
@pytest.mark.parametrize("merge_size", [1, 2])
def test_raster_order(grids, merge_size):
    order = geometry.raster_order(of(grids), merge_size)
    assert sorted(order) == list(range(len(order)))
    raster, blocks = geometry.coords(of(grids), 1), geometry.coords(of(grids), merge_size)
    np.testing.assert_array_equal(raster[order], blocks)
    np.testing.assert_array_equal(geometry.frames(of(grids))[order], geometry.frames(of(grids)))


@every_grid
def test_extent(grids):
    patches = [t * h * w for t, h, w in grids]
    assert geometry.extent(of(grids)) == (sum(patches), max(h * w for _, h, w in grids), sum(t for t, *_ in grids))


@given(
    grids=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)), max_size=6),
    budget=st.integers(1, 60),
)
def test_spans_hold_every_step_once_and_keep_the_budget(grids, budget):
    runs = list(geometry.split_steps(np.array(grids, np.int64).reshape(-1, 3), budget))
    steps = [[(item, step) for item, first, stop in run for step in range(first, stop)] for run in runs]
    assert [*itertools.chain(*steps)] == [(item, step) for item, (t, _, _) in enumerate(grids) for step in range(t)]
    sizes = [[grids[item][1] * grids[item][2] for item, _ in run] for run in steps]
    assert all(sum(run) <= budget or len(run) == 1 for run in sizes)
    assert all(sum(run) + following[0] > budget for run, following in itertools.pairwise(sizes))
