"""The coefficients in the headers of the kernels are those that tools/minimax.py fits, and have the errors it tells."""

import importlib.util

import numpy as np
import pytest

from house.source_files import ROOT

spec = importlib.util.spec_from_file_location("minimax", ROOT / "tools" / "minimax.py")
minimax = importlib.util.module_from_spec(spec)
spec.loader.exec_module(minimax)

HEADERS = "".join((ROOT / "qwenvis" / "kernels" / name).read_text() for name in ("vector.h", "activations.h"))


@pytest.mark.parametrize("name", minimax.POLYNOMIALS)
def test_the_header_holds_what_the_tool_prints(name, monkeypatch, capsys):
    monkeypatch.setattr(minimax, "POLYNOMIALS", {name: minimax.POLYNOMIALS[name]})
    minimax.main()
    told, coefficients = capsys.readouterr().out.rstrip().split("\n", 1)
    comment, body = HEADERS.split(f"INLINE vf {name}(vf ")
    assert told.split(": ")[1] in comment.rsplit("/*", 1)[1]
    assert coefficients in body.split("\n}\n")[0]


def test_no_polynomial_of_the_degree_has_a_smaller_error():
    """x² on [-1, 1] by a line: 1/2, with an error of 1/2 at three points (Chebyshev)."""
    x = minimax.chebyshev_points(-1, 1)
    coefficients = minimax.minimax(x, x**2, np.ones_like(x), 1)
    np.testing.assert_allclose(coefficients, [0.5, 0], rtol=0, atol=1e-9)


def test_a_weight_moves_the_error_to_where_it_is_small():
    x = minimax.chebyshev_points(0, 1)
    weight = 1 / (1 + 9 * x)
    error = weight * (np.polynomial.polynomial.polyval(x, minimax.minimax(x, np.exp(x), weight, 3)) - np.exp(x))
    lobes = np.split(error, np.flatnonzero(np.diff(np.sign(error))) + 1)
    sizes = [np.abs(lobe).max() for lobe in lobes]
    assert len(sizes) == 5
    np.testing.assert_allclose(sizes, max(sizes), rtol=1e-6)
