"""torch's bicubic on bytes, to the bit, and the operation below it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from images_made import noise

from qwenvis import ops, resampling

SIDES = [(1, 1), (1, 40), (40, 1), (2, 3), (28, 28), (97, 61), (200, 33), (331, 173)]


def torch_resize(image, height, width):
    frames = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, 0)))[None]
    resized = torch.nn.functional.interpolate(frames, (height, width), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("contrast", [False, True])
def test_bits_of_torch(sides, contrast):
    image = noise(*sides)
    image = (image > 127).astype(np.uint8) * 255 if contrast else image
    for height, width in [*SIDES[1:], (sides[0], 77), (77, sides[1])]:  # to 1 x 1, torch fails
        got = resampling.resize(image, height, width)
        assert got.dtype == np.uint8
        assert np.array_equal(got, torch_resize(image, height, width)), (height, width)


def test_bits_of_torch_far_down():
    """Many small weights, which need more bits."""
    image = noise(1, 5000)
    for width in (2, 3, 28, 252):
        assert np.array_equal(resampling.resize(image, 1, width), torch_resize(image, 1, width))


def truth(image, starts, weights, bits, axis):
    """The sum in whole numbers of any size; a repeated last entry has no weight."""
    lines = np.moveaxis(image, axis, 0).astype(np.int64)
    taken = lines[np.minimum(starts[:, None] + np.arange(weights.shape[1]), len(lines) - 1)]
    inside = starts[:, None] + np.arange(weights.shape[1]) < len(lines)
    total = np.einsum("ik,ik...->i...", weights * inside, taken) + (1 << (bits - 1))
    return np.moveaxis(np.clip(total >> bits, 0, 255), 0, axis).astype(np.uint8)


@given(
    sides=st.tuples(st.integers(1, 9), st.integers(1, 210)),
    resized=st.integers(1, 20),
    taps=st.integers(1, 9),
    bits=st.integers(1, 15),
    axis=st.sampled_from([0, 1]),
    threads=st.sampled_from([1, 3]),
)
def test_any_weights(sides, resized, taps, bits, axis, threads):
    rng = np.random.default_rng([*sides, resized, taps, bits])
    image = noise(*sides)
    starts = rng.integers(0, sides[axis], resized).astype(np.int32)
    weights = rng.integers(-(2**15), 2**15, (resized, taps)).astype(np.int16)
    shape = (resized, sides[1], 3) if axis == 0 else (sides[0], resized, 3)
    guarded = np.full((shape[0] + 2, *shape[1:]), 77, np.uint8)
    op = (ops.resample_columns, ops.resample_rows)[axis]
    with ops.use_threads(threads):
        out = op(image, starts, weights, bits, guarded[1:-1])
    assert np.array_equal(out, truth(image, starts, weights, bits, axis))
    assert (guarded[[0, -1]] == 77).all()


@pytest.mark.parametrize("op", [ops.resample_rows, ops.resample_columns])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((4, 4, 4), np.uint8)}, "three channels"),
        ({"image": np.zeros((0, 4, 3), np.uint8)}, "three channels"),
        ({"image": np.zeros((5, 5, 3), np.uint8)}, r"out is \(4, 4, 3\); the other side is 5"),
        ({"starts": np.zeros(3, np.int32)}, "3 starts and 4 rows of weights; 4 expected"),
        ({"weights": np.zeros((5, 2), np.int16)}, "4 starts and 5 rows of weights; 4 expected"),
        ({"weights": np.zeros((4, 0), np.int16)}, "4 expected"),
        ({"starts": np.array([0, 1, 4, 0], np.int32)}, r"starts\[2\] is 4; there are 4 entries"),
        ({"starts": np.array([-1, 1, 2, 0], np.int32)}, r"starts\[0\] is -1"),
        ({"bits": 0}, "bits is 0"),
        ({"bits": 23}, "bits is 23"),
        ({"image": np.zeros((4, 4, 3), np.float32)}, "dtype"),
        ({"out": np.zeros((4, 8, 3), np.uint8)[:, ::2]}, "contiguous"),
    ],
)
def test_what_does_not_fit_is_refused(op, change, message):
    given = {
        "image": np.zeros((4, 4, 3), np.uint8),
        "starts": np.zeros(4, np.int32),
        "weights": np.ones((4, 2), np.int16),
        "bits": 8,
        "out": np.zeros((4, 4, 3), np.uint8),
    }
    with pytest.raises(ValueError, match=message):
        op(*(given | change).values())
