"""Arrays, and the tensors of other packages as arrays. No other package is imported.

NumPy reads a tensor through ``__array__`` or DLPack, and shares its memory where it can.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qwenvis.errors import InputError


class Tensor(Protocol):
    """An array of another package, for type checkers."""

    def __array__(self, *args: Any, **options: Any) -> NDArray[Any]:
        """As NumPy asks for it."""


def is_array(value: Any) -> bool:
    """Whether this is an array or a tensor; not so the columns of tables, one-dimensional and without DLPack."""
    if isinstance(value, np.ndarray) or hasattr(value, "__dlpack__"):
        return True
    return hasattr(value, "__array__") and getattr(value, "ndim", 2) > 1


def plain(value: Any, where: str, error: type[InputError] = InputError) -> NDArray[Any]:
    """Anything that NumPy can read, as a plain array, shared if possible. bfloat16 tensors become float32, exactly.

    Raises ``error`` for arrays that cannot be read from here, such as those on a GPU, and for masked entries, which
    have no value.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        masked = int(np.count_nonzero(np.ma.getmaskarray(value)))
        raise error(f"{where}: {masked} entries of the array are masked; pass array.filled(value)")
    try:
        if str(getattr(value, "dtype", "")) == "torch.bfloat16":
            value = value.float()  # NumPy knows no bfloat16
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except MemoryError:
        raise
    except Exception as cause:
        remedy = "; pass tensor.detach().cpu()" if hasattr(value, "detach") else ""
        raise error(f"{where} is no array that NumPy can read: {cause}{remedy}") from cause
