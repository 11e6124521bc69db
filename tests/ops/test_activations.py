"""Each activation over all of float32: the relative error, in the tails too, and what happens beyond them."""

import numpy as np
import pytest

from made.arrays import assert_same_bits, normal
from oracle import reference
from oracle.tolerance import activation_relative_tolerance, assert_close, gelu_tolerance
from qwenvis.ops import PackedWeight, linear


def quick_gelu(x):
    y = reference.quick_gelu(x)
    return y, activation_relative_tolerance(x, y, 1.702 * x)


def gelu(x):
    y = reference.gelu(x)
    return y, gelu_tolerance(x, y)


def gelu_pytorch_tanh(x):
    """(1 + tanh y) / 2 is σ(2y), which loses nothing where tanh y is near -1."""
    exponent = 2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    y = x * reference.sigmoid(exponent)
    return y, activation_relative_tolerance(x, y, exponent)


def silu(x):
    y = reference.silu(x)
    return y, activation_relative_tolerance(x, y, x)


def activated(x, activation, up=None):
    """The activation of x (n,), through a product with 1: all lanes of all panels take part."""
    weight = PackedWeight(len(x), 1, gated=up is not None)
    weight.pack(x[:, None])
    if up is not None:
        weight.pack(up[:, None], half=1)
    return linear(np.ones((1, 1), np.float32), weight, np.empty((1, len(x)), np.float32), activation=activation)[0]


def gated(x):
    return activated(x, "silu_gate", np.ones_like(x))


CURVES = {
    "quick_gelu": (lambda x: activated(x, "quick_gelu"), quick_gelu),
    "gelu": (lambda x: activated(x, "gelu"), gelu),
    "gelu_pytorch_tanh": (lambda x: activated(x, "gelu_pytorch_tanh"), gelu_pytorch_tanh),
    "silu_gate": (gated, silu),
}
every_curve = pytest.mark.parametrize("name", CURVES)

RANGES = {
    "middle": np.linspace(-6, 6, 4001),
    "tails": np.linspace(-60, 60, 4001),
    "around the smallest normal results": np.concatenate([np.linspace(-14, -12, 501), np.linspace(-91, -50, 501)]),
    "tiny": np.concatenate([-np.geomspace(1e-38, 1, 501), np.geomspace(1e-38, 1, 501)]),
    "huge": np.concatenate([-np.geomspace(1, 3.4e38, 501), np.geomspace(1, 3.4e38, 501)]),
}


@every_curve
@pytest.mark.parametrize("span", RANGES)
def test_relative_error(isa, name, span):
    x = RANGES[span].astype(np.float32)
    curve, formula = CURVES[name]
    assert_close(curve(x), *formula(x.astype(np.float64)))


def test_both_forms_of_the_tanh_gelu_agree():
    x = RANGES["middle"]
    np.testing.assert_allclose(gelu_pytorch_tanh(x)[0], reference.gelu_tanh(x), rtol=0, atol=1e-15)


@every_curve
def test_zero_stays_zero_and_one_side_is_the_identity(isa, name):
    curve, _ = CURVES[name]
    assert (curve(np.array([0.0, -0.0], np.float32)) == 0).all()
    large = np.array([30, 100, 1e4, 1e30, np.finfo(np.float32).max], np.float32)
    assert_same_bits(curve(large), large)


@every_curve
def test_bits_do_not_depend_on_the_lane(isa, name):
    curve, _ = CURVES[name]
    x = np.linspace(-9, 9, 77, dtype=np.float32)
    for start in range(1, 40):
        assert_same_bits(curve(x[start:]), curve(x)[start:])


def test_gate_and_up_are_not_exchanged(isa, rng):
    gate, up = normal(rng, 2, 100) * 3
    want, tolerance = silu(gate.astype(np.float64))
    tolerance *= np.abs(up.astype(np.float64))
    assert_close(activated(gate, "silu_gate", up), want * up, tolerance)
    with pytest.raises(AssertionError, match="elements differ"):
        assert_close(activated(up, "silu_gate", gate), want * up, tolerance)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("quick_gelu", reference.silu),
        ("quick_gelu", lambda x: x * reference.sigmoid(1.7 * x)),
        ("gelu", reference.gelu_tanh),
        ("gelu", reference.quick_gelu),
        ("gelu_pytorch_tanh", reference.gelu),
        ("gelu_pytorch_tanh", lambda x: x / 2 * (1 + np.tanh(0.7978845608 * (x + 0.04471 * x**3)))),
        ("silu_gate", reference.quick_gelu),
    ],
)
def test_another_formula_is_seen(name, other):
    """The tolerance tells every pair of curves apart, and a constant that is one digit short."""
    x = RANGES["middle"].astype(np.float32)
    with pytest.raises(AssertionError, match="elements differ"):
        assert_close(other(x), *CURVES[name][1](x.astype(np.float64)))
