"""The names of dtypes in arguments and checkpoints, and the number format of weights that each name means.

The formats themselves, and what this CPU does with each, are `ops.formats()`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from qwenvis import ops
from qwenvis.errors import InputError, quoted

AUTO = "auto"


class DtypeNames(NamedTuple):
    """The dtype of a format, its other spellings, and the stored dtypes for which "auto" takes the format."""

    dtype: str
    spellings: tuple[str, ...] = ()
    stored: frozenset[str] = frozenset()


# By format. A format that is not listed goes by its own name, and "auto" never takes it.
_NAMES = {
    "f32": DtypeNames("float32", ("fp32", "float", "single"), frozenset({"F32"})),
    "bf16": DtypeNames("bfloat16", stored=frozenset({"BF16"})),
}
_FORMATS = {format: _NAMES.get(format, DtypeNames(format)) for format in ops.formats()}

DTYPES = {names.dtype: format for format, names in _FORMATS.items()}
_MEANT = {
    spelling: format for format, names in _FORMATS.items() for spelling in (format, names.dtype, *names.spellings)
}
_HALF = (
    "values inside these towers exceed 65,504, its largest: pass bfloat16, which is as small and has the range of "
    "float32, or float32"
)
_WHY = {
    **dict.fromkeys(("float16", "f16", "fp16", "half"), _HALF),
    **dict.fromkeys(("float64", "f64", "fp64", "double"), "float32 is the most exact format here"),
    **dict.fromkeys(("int8", "i8", "uint8", "int4"), "towers are not quantised by this version"),
}


def format_named(dtype: object) -> str:
    """Return the format, or "auto", that a caller means by a text or by a type of NumPy, ml_dtypes or PyTorch.

    Raises InputError for any other value.
    """
    word = _word(dtype).lower().removeprefix("torch.")
    if word == AUTO:
        return AUTO
    if word in _MEANT:
        return _MEANT[word]
    why = f" ({_WHY[word]})" if word in _WHY else ""
    raise InputError(f"dtype is {quoted(dtype)}{why}; expected {AUTO}, {', '.join(DTYPES)}")


def automatic(stored: Collection[str]) -> str:
    """Return the format that "auto" takes for a checkpoint with these stored dtypes, as safetensors names them.

    It is the format that holds all of them exactly, if this CPU multiplies it, else "f32".
    """
    available = ops.formats()
    for format, names in _FORMATS.items():
        if names.stored.issuperset(stored) and not available[format].expanded:
            return format
    return "f32"


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
