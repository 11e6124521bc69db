"""Read arrays, tensors and dtypes of other packages as those of NumPy, without importing these packages.

NumPy reads a tensor through ``__array__`` or DLPack, and shares its memory if possible.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qwenvis.errors import InputError

_SPELLINGS = {
    **dict.fromkeys(("f32", "fp32", "float", "single"), "float32"),
    **dict.fromkeys(("f16", "fp16", "half"), "float16"),
    **dict.fromkeys(("f64", "fp64", "double"), "float64"),
    "bf16": "bfloat16",
    "i8": "int8",
}


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


def dtype_name(dtype: object) -> str:
    """Return the name of a dtype, such as "bfloat16", which a caller gives as text or as a type of a library.

    Libraries are NumPy, ml_dtypes and PyTorch. Other text is returned in lower case; other values give "".
    """
    word = _word(dtype).lower().removeprefix("torch.")
    return _SPELLINGS.get(word, word)


def _word(dtype: object) -> str:
    """Return the name of a type in the library that defines it, or "" for a value that is no type."""
    if isinstance(dtype, str):
        return dtype
    if dtype is float:
        return "float64"  # as NumPy reads Python's float
    if isinstance(dtype, np.dtype):
        return str(dtype.name)
    if isinstance(dtype, type):
        return dtype.__name__
    return str(dtype) if type(dtype).__name__ == "dtype" else ""  # torch.dtype, without importing torch
