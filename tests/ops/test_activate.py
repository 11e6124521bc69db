"""Activations of arrays: those of a product's epilogue, to the bit, and the clamped gate."""

import ml_dtypes
import numpy as np
import pytest

from made.arrays import Fenced, assert_same_bits, normal
from oracle import reference
from oracle.tolerance import activation_tolerance, assert_close
from qwenvis import ops

SHAPES = [(1, 1), (31, 15), (32, 16), (33, 33), (70, 100)]


def activated(x, columns, name, **options):
    """The op on a fenced output."""
    out = Fenced(len(x), columns)
    assert ops.activate(x, out.array, activation=name, **options) is out.array
    result = out.array.copy()
    out.assert_intact()
    return result


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", [name for name in ops.ACTIVATIONS if name != "silu_gate"])
def test_as_after_a_product(isa, rng, shape, name):
    x = 3 * normal(rng, *shape)
    identity = ops.PackedWeight(shape[1], shape[1])
    identity.pack(np.eye(shape[1], dtype=np.float32))
    want = ops.linear(x, identity, np.empty(shape, np.float32), activation=name)
    assert_same_bits(activated(x, shape[1], name), want)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("limit", [0.5, 3.0, np.inf])
def test_clamped_gate(isa, rng, shape, limit):
    rows, columns = shape
    gate, up = 3 * normal(rng, rows, columns), 3 * normal(rng, rows, columns)
    got = activated(np.concatenate([gate, up], axis=1), columns, "silu_gate", limit=limit)
    bound = activation_tolerance(gate) * (1 + np.abs(up))
    assert_close(got, reference.clamped_gate(gate, up, limit), bound)


def test_other_activations_have_the_upper_limit_alone(isa, rng):
    x = 3 * normal(rng, 9, 40)
    assert_same_bits(activated(x, 40, "none", limit=1.0), np.minimum(x, 1))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_outputs_of_bfloat16_and_threads(isa, rng, threads):
    x = normal(rng, 100, 50)
    wide = activated(x, 50, "gelu")
    with ops.use_threads(threads):
        half = ops.activate(x, np.empty((100, 50), np.uint16), activation="gelu")
    assert np.array_equal(half, wide.astype(ml_dtypes.bfloat16).view(np.uint16))


def test_what_does_not_fit_is_refused(rng):
    x, out = normal(rng, 4, 6), np.empty((4, 6), np.float32)
    with pytest.raises(ValueError, match="unknown activation 'relu'"):
        ops.activate(x, out, activation="relu")
    with pytest.raises(ValueError, match="x is "):
        ops.activate(x, out, activation="silu_gate")
    with pytest.raises(ValueError, match="x is "):
        ops.activate(x, out[:3], activation="gelu")
    with pytest.raises(ValueError, match="expected float32"):
        ops.activate(np.zeros((4, 6), np.uint16), out, activation="gelu")
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        ops.activate(x, out, activation="gelu")
