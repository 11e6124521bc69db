"""Read arrays and the tensors of other packages as NumPy arrays, without importing these packages.

NumPy reads a tensor through ``__array__`` or DLPack, and shares its memory if possible.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qwenvis.errors import InputError


class SupportsArray(Protocol):
    """An array of another package, as type checkers see it."""

    def __array__(self, *args: Any, **options: Any) -> NDArray[Any]:
        """Return a NumPy array."""


def is_array(value: Any) -> bool:
    """Return whether a value is an array or a tensor; a column of a table (1-D, without DLPack) is not."""
    if isinstance(value, np.ndarray) or hasattr(value, "__dlpack__"):
        return True
    return hasattr(value, "__array__") and getattr(value, "ndim", 2) > 1


def plain(value: Any, where: str, error: type[InputError] = InputError) -> NDArray[Any]:
    """Return an array or tensor as a NumPy array, sharing memory if possible; bfloat16 becomes float32, exactly.

    Raises ``error`` for an array that NumPy cannot read, such as a tensor on a GPU, and for masked entries, which have
    no value.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        masked = int(np.count_nonzero(np.ma.getmaskarray(value)))
        raise error(f"{where}: {masked} entries of the array are masked; pass array.filled(value)")
    try:
        if str(getattr(value, "dtype", "")) == "torch.bfloat16":
            value = value.float()  # NumPy has no bfloat16
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except MemoryError:
        raise
    except Exception as cause:
        remedy = "; pass tensor.detach().cpu()" if hasattr(value, "detach") else ""
        raise error(f"{where} is not an array that NumPy can read: {cause}{remedy}") from cause
