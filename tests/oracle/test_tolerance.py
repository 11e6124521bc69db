"""The helper that judges every operation: it lets float32 pass, and nothing that is wrong."""

from itertools import pairwise

import numpy as np
import pytest

from oracle import reference
from oracle.tolerance import (
    activation_tolerance,
    assert_close,
    attention_tolerance,
    dot_tolerance,
    norm_tolerance,
    relative_error,
    rope_tolerance,
)

LENGTHS = [1, 7, 64, 1176, 5120]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def f32(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def dot_in_order(x, w):
    """The product in float32, one term after the other: the roughest sum that an implementation might use."""
    total = np.zeros((len(x), len(w)), np.float32)
    for k in range(x.shape[1]):
        total += x[:, k, None] * w[:, k]
    return total


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("product", [dot_in_order, lambda x, w: x @ w.T], ids=["in order", "BLAS"])
def test_float32_product_passes(rng, length, product):
    x, w = f32(rng, 13, length), f32(rng, 17, length)
    assert_close(product(x, w), reference.linear(x, w), dot_tolerance(x, w))


def rounded_to_bf16(x):
    return (x.view(np.uint32) + 0x8000 & 0xFFFF0000).astype(np.uint32).view(np.float32)


def test_rounded_inputs_pass_only_as_such(rng):
    x, w = f32(rng, 13, 640), f32(rng, 17, 640)
    got, want = rounded_to_bf16(x) @ rounded_to_bf16(w).T, reference.linear(x, w)
    assert_close(got, want, dot_tolerance(x, w, stored="bf16"))
    with pytest.raises(AssertionError, match="elements differ"):
        assert_close(got, want, dot_tolerance(x, w))


def one_term_missing(x, w, y):
    return y - np.outer(x[:, -1], w[:, -1])


def one_element_off(x, w, y):
    y[2, 3] += 1e-3 * (np.abs(x[2]) @ np.abs(w[3]))
    return y


def columns_swapped(x, w, y):
    return y[:, [1, 0, *range(2, y.shape[1])]]


def not_a_number(x, w, y):
    y[0, 0] = np.nan
    return y


@pytest.mark.parametrize("mistake", [one_term_missing, one_element_off, columns_swapped, not_a_number])
@pytest.mark.parametrize("length", LENGTHS)
def test_wrong_product_fails(rng, length, mistake):
    x, w = f32(rng, 13, length), f32(rng, 17, length)
    want = reference.linear(x, w)
    with pytest.raises(AssertionError, match="elements differ"):
        assert_close(mistake(x, w, want.copy()), want, dot_tolerance(x, w))


def rms_norm(x, w):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + np.float32(1e-6)) * w


def layer_norm(x, w, b):
    return rms_norm(x - x.mean(axis=-1, keepdims=True), w) + b


@pytest.mark.parametrize("offset", [0, 30], ids=["centred", "far from zero"])
@pytest.mark.parametrize("scale", [1, 1e-3])
def test_float32_norms_pass(rng, offset, scale):
    x, w, b = (f32(rng, 13, 80) + np.float32(offset)) * np.float32(scale), f32(rng, 80), f32(rng, 80)
    assert_close(layer_norm(x, w, b), reference.layer_norm(x, w, b), norm_tolerance(x, w, b))
    assert_close(rms_norm(x, w), reference.rms_norm(x, w), norm_tolerance(x, w))


def test_norms_of_another_eps_or_variance_fail(rng):
    x, w, b = f32(rng, 13, 80), f32(rng, 80), f32(rng, 80)
    with pytest.raises(AssertionError, match="elements differ"):
        assert_close(reference.layer_norm(x, w, b, eps=1e-4), reference.layer_norm(x, w, b), norm_tolerance(x, w, b))
    with pytest.raises(AssertionError, match="elements differ"):
        assert_close(reference.rms_norm(x, w, eps=1e-4), reference.rms_norm(x, w), norm_tolerance(x, w))
    unbiased = reference.layer_norm(x, w * np.sqrt(79 / 80), b)
    with pytest.raises(AssertionError, match="elements differ"):
        assert_close(unbiased, reference.layer_norm(x, w, b), norm_tolerance(x, w, b))


def test_activations(rng):
    x = f32(rng, 1000) * 3
    got = x / (1 + np.exp(np.float32(-1.702) * x))
    assert_close(got, reference.quick_gelu(x), activation_tolerance(x))
    with pytest.raises(AssertionError, match="elements differ"):
        assert_close(reference.gelu_tanh(x), reference.gelu(x), activation_tolerance(x))


def test_rope(rng):
    x = f32(rng, 35, 2, 16)
    cos, sin = reference.rope_table(reference.coords([(1, 10, 14)], 2)[:35], 16)
    a, b = np.split(x, 2, axis=-1)
    c, s = (table.astype(np.float32)[:, None] for table in (cos, sin))
    got, want = np.concatenate([a * c - b * s, b * c + a * s], axis=-1), reference.rope(x, cos, sin)
    assert_close(got, want, rope_tolerance(x))
    with pytest.raises(AssertionError, match="elements differ"):
        assert_close(got, reference.rope(x, cos, -sin), rope_tolerance(x))


def test_attention(rng):
    q, k, v = f32(rng, 70, 4, 64), f32(rng, 70, 2, 64), f32(rng, 70, 2, 64)
    cu_seqlens = [0, 40, 40, 69, 70]
    got = np.zeros_like(q)
    for start, stop in pairwise(cu_seqlens):
        for head in range(4):
            weights = np.exp(q[start:stop, head] @ k[start:stop, head // 2].T / np.float32(8))
            got[start:stop, head] = weights @ v[start:stop, head // 2] / weights.sum(axis=-1, keepdims=True)
    want, tolerance = reference.attention(q, k, v, cu_seqlens), attention_tolerance(q, k, v, cu_seqlens)
    assert_close(got, want, tolerance)
    with pytest.raises(AssertionError, match="elements differ"):
        assert_close(reference.attention(q, k, v, [0, 40, 41, 69, 70]), want, tolerance)


def test_relative_error():
    assert relative_error([1, 2, 4.4], [1, 2, 4]) == pytest.approx(0.1)
    assert relative_error([0, 0], [0, 0]) == 0
    assert relative_error([0, 1], [0, 0]) == np.inf
    assert np.isnan(relative_error([np.nan, 1], [0, 1]))
    assert relative_error(np.zeros((0, 3)), np.zeros((0, 3))) == 0


def test_message_names_the_worst_element():
    with pytest.raises(AssertionError, match=r"tokens: 2 of 3 elements differ; the worst, at \(2,\), is 5; expected 3"):
        assert_close([1, 2.1, 5], [1, 2, 3], 1e-3, "tokens")


def test_shapes_must_agree():
    with pytest.raises(AssertionError, match=r"shape \(2,\); expected \(3,\)"):
        assert_close(np.zeros(2), np.zeros(3), 1e-3)
