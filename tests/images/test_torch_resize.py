"""Resizing of bytes, beside PyTorch's own."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenvis.images.torch_resize import resize, taps


def torch_resize(frame, height, width):
    """What torchvision does with a uint8 tensor."""
    planes = torch.from_numpy(frame).permute(2, 0, 1)[None].contiguous()
    made = torch.nn.functional.interpolate(planes, (height, width), mode="bicubic", antialias=True)
    return made[0].permute(1, 2, 0).numpy()


def noise(size, levels=256):
    """Random bytes, as many levels of them."""
    drawn = np.random.default_rng(0).integers(0, levels, (*size, 3))
    return (drawn * (255 // (levels - 1))).astype(np.uint8)


side = st.integers(1, 200)


@settings(max_examples=300)
@given(size=st.tuples(side, side), target=st.tuples(side, st.integers(2, 200)), levels=st.sampled_from([2, 256]))
def test_any_size(size, target, levels):
    """Of a target of 1 x 1 PyTorch 2.13 fails an assertion of its own."""
    frame = noise(size, levels)
    np.testing.assert_array_equal(resize(frame, *target), torch_resize(frame, *target))


@pytest.mark.parametrize("scale", [(2, 2), (1, 3), (0.5, 0.5), (0.25, 1)])
@pytest.mark.parametrize("size", [(120, 64), (37, 101), (480, 8)])
def test_whole_ratios(isa, size, scale):
    """Where the sums of many bytes stand exactly between two."""
    frame = noise(size)
    target = [max(1, int(length * factor)) for length, factor in zip(size, scale, strict=True)]
    np.testing.assert_array_equal(resize(frame, *target), torch_resize(frame, *target))


@pytest.mark.parametrize(("size", "target"), [((4000, 30), (28, 28)), ((9, 7000), (56, 28)), ((720, 1280), (364, 644))])
def test_large_steps(size, target):
    frame = noise(size)
    np.testing.assert_array_equal(resize(frame, *target), torch_resize(frame, *target))


def test_its_own_size_is_no_work():
    frame = noise((5, 9))
    assert resize(frame, 5, 9) is frame


def test_taps_stay_inside_and_sum_to_one():
    for source, target in [(1, 1), (1, 9), (5, 3), (1000, 7), (7, 1000)]:
        starts, weights, precision = taps(source, target)
        assert starts.min() >= 0
        assert (starts + weights.shape[1]).max() <= source
        assert abs(weights.sum(axis=1) - (1 << precision)).max() <= weights.shape[1]
