"""What a tower returns, and what it shows on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# watch(x, order): the hidden states after the patch embedding and after each block, depth + 1 times; row r of x
# belongs to row order[r] of pixel_values. x is live: whoever keeps it copies it.
Watch = Callable[[np.ndarray, np.ndarray], object]


@dataclass(frozen=True)
class Features:
    """The arrays that a tower fills, in the order of the items: ``tokens`` (m, out_hidden_size) float32.

    ``deepstack`` holds as many of the same shape as the config names blocks, in the order of the blocks.
    """

    tokens: np.ndarray
    deepstack: Sequence[np.ndarray] = ()


def unwatched(x: np.ndarray, order: np.ndarray) -> None:
    """Look at nothing."""
