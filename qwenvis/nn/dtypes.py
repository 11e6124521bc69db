"""What callers call the number formats of weights: every spelling that means one, and why others are refused."""

from __future__ import annotations

import numpy as np

from qwenvis.errors import InputError, quoted

AUTO = "auto"
# What a caller names -> how weights are packed and products are computed.
DTYPES = {"float32": "f32", "bfloat16": "bf16"}

# As numpy, torch and the files of checkpoints spell them, in lower case.
_SPELLINGS = {
    "float32": ("float32", "f32", "fp32", "float", "single"),
    "bfloat16": ("bfloat16", "bf16"),
    AUTO: (AUTO,),
}
_MEANT = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}
_HALF = (
    "values inside these towers exceed 65,504, its largest: pass bfloat16, which is as small and has the range of "
    "float32, or float32"
)
_WHY = {
    **dict.fromkeys(("float16", "f16", "fp16", "half"), _HALF),
    **dict.fromkeys(("float64", "f64", "fp64", "double"), "float32 is the most exact format here"),
    **dict.fromkeys(("int8", "i8", "uint8", "int4"), "towers are not quantised by this version"),
}


def dtype_named(dtype: object) -> str:
    """The name, of ``DTYPES`` or "auto", that a caller means by a text, or by a type of NumPy, ml_dtypes or PyTorch.

    Raises InputError for another.
    """
    word = _word(dtype).lower().removeprefix("torch.")
    if word in _MEANT:
        return _MEANT[word]
    why = f" ({_WHY[word]})" if word in _WHY else ""
    raise InputError(f"dtype is {quoted(dtype)}{why}; expected {AUTO}, {', '.join(DTYPES)}")


def _word(dtype: object) -> str:
    """How a type is called by those who made it, empty for what is no type."""
    if isinstance(dtype, str):
        return dtype
    if dtype is float:
        return "float64"  # Python's, and what NumPy takes it for
    if isinstance(dtype, np.dtype):
        return str(dtype.name)
    if isinstance(dtype, type):
        return dtype.__name__
    return str(dtype) if type(dtype).__name__ == "dtype" else ""  # torch.dtype, without importing torch
