"""Fixtures and settings of all tests."""

import os

# Before PyTorch and NumPy are loaded. PyTorch's idle threads would spin on the cores that other tests need;
# OpenBLAS takes ten times as long for the small float64 products of the reference on two threads as on one.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# No test asks the real Hub for anything; those of downloads have a Hub of their own.
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
from hypothesis import settings

from made.tile_sizes import ISAS, tile_of, using_isa

# The same examples on every run: a failure is a change of the code. Shared machines are slow now and then.
settings.register_profile("steady", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("steady")


@pytest.fixture(params=ISAS)
def isa(request):
    """Select each instruction set of this machine in turn."""
    with using_isa(request.param):
        yield request.param


@pytest.fixture
def tile(isa):
    """The tile (mr, nr) of the selected instruction set."""
    return tile_of(isa)


@pytest.fixture
def rng():
    """A generator of the same random numbers for every test."""
    return np.random.default_rng(0)
