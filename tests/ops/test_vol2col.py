"""Frames to patches: every value in its place, bit by bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made.arrays import Fenced, assert_same_bits
from oracle import reference
from qwenvis import ops


def cut(frames, lut, patch=14, temporal=2, merge=2):
    """The op on a fenced output."""
    t, height, width, _ = frames.shape
    rows = -(-t // temporal) * (height // patch) * (width // patch)
    out = Fenced(rows, 3 * temporal * patch**2, pad=0)
    assert ops.vol2col(frames, lut, patch, temporal, merge, out.array) is out.array
    result = out.array.copy()
    out.assert_intact()
    return result


def truth(frames, lut, patch=14, temporal=2, merge=2):
    values = lut[np.arange(3), frames]  # float32, by channel
    return reference.vol2col(values, patch, temporal, merge)


def pictures(rng, *shape):
    return rng.integers(0, 256, (*shape, 3), np.uint8), rng.standard_normal((3, 256), np.float32)


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 56, 140), (2, 84, 28), (3, 28, 84), (5, 56, 56), (1, 28, 5600)])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_frames(isa, rng, shape, threads):
    frames, lut = pictures(rng, *shape)
    with ops.use_threads(threads):
        assert_same_bits(cut(frames, lut), truth(frames, lut))


@given(
    counts=st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4)),
    patch=st.integers(1, 17),
    temporal=st.integers(1, 4),
    merge=st.integers(1, 3),
)
def test_any_shape(counts, patch, temporal, merge):
    t, rows, columns = counts
    frames, lut = pictures(np.random.default_rng(counts), t, rows * patch * merge, columns * patch * merge)
    assert_same_bits(cut(frames, lut, patch, temporal, merge), truth(frames, lut, patch, temporal, merge))


def test_channels_have_their_own_values(isa):
    """A frame of one colour: a patch is its channels, one after the other."""
    frames = np.broadcast_to(np.array([0, 128, 255], np.uint8), (1, 4, 4, 3)).copy()
    lut = np.arange(3 * 256, dtype=np.float32).reshape(3, 256)
    want = np.repeat([0, 256 + 128, 512 + 255], 2 * 4).astype(np.float32)
    assert_same_bits(cut(frames, lut, patch=2), np.tile(want, (4, 1)))


def test_last_frame_is_repeated(rng):
    frames, lut = pictures(rng, 3, 28, 28)
    odd, even = cut(frames, lut), cut(np.concatenate([frames, frames[-1:]]), lut)
    assert_same_bits(odd, even)


@pytest.mark.parametrize("mistake", ["transposed", "raster order", "channels last"])
def test_mistake_is_seen(rng, mistake):
    frames, lut = pictures(rng, 2, 56, 84)
    want = truth(frames, lut)
    wrong = {
        "transposed": lambda: cut(frames.swapaxes(1, 2).copy(), lut),
        "raster order": lambda: cut(frames, lut, merge=1),
        "channels last": lambda: cut(frames[..., ::-1].copy(), lut),
    }
    with pytest.raises(AssertionError, match="differ"):
        assert_same_bits(wrong[mistake](), want)


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def frame(*shape):
    return zeros(*shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("frames", "lut", "out", "message"),
    [
        (frame(1, 28, 29, 3), zeros(3, 256), zeros(4, 1176), r"frames are \(1, 28, 29, 3\); .* multiples of 28"),
        (frame(1, 14, 28, 3), zeros(3, 256), zeros(2, 1176), "multiples of 28"),
        (frame(1, 28, 28, 4), zeros(3, 256), zeros(4, 1176), r"frames are \(1, 28, 28, 4\)"),
        (frame(0, 28, 28, 3), zeros(3, 256), zeros(0, 1176), r"frames are \(0, 28, 28, 3\)"),
        (frame(1, 28, 28, 3), zeros(3, 255), zeros(4, 1176), r"lut must be \(3, 256\)"),
        (frame(1, 28, 28, 3), zeros(4, 256), zeros(4, 1176), r"lut must be \(3, 256\)"),
        (frame(1, 28, 28, 3), zeros(3, 256), zeros(3, 1176), r"out is \(3, 1176\); there are 4 patches"),
        (frame(1, 28, 28, 3), zeros(3, 256), zeros(4, 588), r"out is \(4, 588\)"),
        (zeros(1, 28, 28, 3), zeros(3, 256), zeros(4, 1176), "dtype"),
        (frame(28, 28, 3), zeros(3, 256), zeros(4, 1176), "dimensions"),
        (frame(1, 28, 56, 3)[:, :, ::2], zeros(3, 256), zeros(4, 1176), "contiguous"),
        (frame(1, 28, 28, 3), zeros(3, 256), zeros(4, 2352)[:, ::2], "contiguous"),
    ],
)
def test_what_does_not_fit_is_refused(frames, lut, out, message):
    with pytest.raises(ValueError, match=message):
        ops.vol2col(frames, lut, 14, 2, 2, out)


@pytest.mark.parametrize("sizes", [(0, 2, 2), (14, 0, 2), (14, 2, 0), (-14, 2, -2), (14, -2, 2)])
def test_sizes_of_nothing_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes are"):
        ops.vol2col(frame(1, 28, 28, 3), zeros(3, 256), *sizes, zeros(4, 1176))
