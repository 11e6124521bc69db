"""What the tests of several rooms share."""

import os

# Before OpenMP is loaded: its idle threads would spin on the cores that other tests' processes want.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import pytest
from hypothesis import settings

from made.tile_sizes import ISAS, tile_of, using_isa

# The same examples on every run: a failure is a change of the code. Shared machines are slow now and then.
settings.register_profile("steady", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("steady")


@pytest.fixture(params=ISAS)
def isa(request):
    """Each instruction set that this machine has, selected."""
    with using_isa(request.param):
        yield request.param


@pytest.fixture
def tile(isa):
    """(mr, nr) of the selected instruction set."""
    return tile_of(isa)


@pytest.fixture
def rng():
    """The same random numbers for every test."""
    return np.random.default_rng(0)
