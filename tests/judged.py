"""Towers of transformers, made once, and what they compute in float64."""

import functools

import truth


@functools.cache
def made(family):
    model, config, weights = truth.make(family)
    return model, truth.double(model), config, weights


@functools.cache
def judged(family, grids, scale=1.0):
    """Inputs, and what transformers makes of them in float64."""
    _, double, config, _ = made(family)
    given = truth.inputs(config, grids, scale=scale)
    return *given, truth.run(double, *given)


def hashable(grids):
    """Grids as tuples."""
    return tuple(map(tuple, grids))
