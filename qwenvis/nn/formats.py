"""The names of dtypes in arguments and checkpoints, and the number format of weights that each name means.

The formats themselves, and what this CPU does with each, are `ops.formats()`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from qwenvis import ops
from qwenvis.errors import InputError, quoted
from qwenvis.io.arrays import dtype_name

AUTO = "auto"


class DtypeNames(NamedTuple):
    """The dtype of a format, and the stored dtypes for which "auto" takes the format."""

    dtype: str
    stored: frozenset[str] = frozenset()


# By format. A format that is not listed goes by its own name, and "auto" never takes it.
_NAMES = {
    "f32": DtypeNames("float32", frozenset({"F32"})),
    "bf16": DtypeNames("bfloat16", frozenset({"BF16"})),
    "i8": DtypeNames("int8"),
}
_FORMATS = {format: _NAMES.get(format, DtypeNames(format)) for format in ops.formats()}

DTYPES = {names.dtype: format for format, names in _FORMATS.items()}
_HALF = (
    "values inside these towers exceed 65,504, its largest: pass bfloat16, which is as small and has the range of "
    "float32, or float32"
)
_WHY = {
    "float16": _HALF,
    "float64": "float32 is the most exact format here",
    **dict.fromkeys(("uint8", "int4"), "int8 is the only integer format here"),
}


def format_named(dtype: object) -> str:
    """Return the format, or "auto", that a caller means by a text or by a type of NumPy, ml_dtypes or PyTorch.

    Raises InputError for any other value.
    """
    word = dtype_name(dtype)
    if word == AUTO:
        return AUTO
    if word in DTYPES:
        return DTYPES[word]
    why = f" ({_WHY[word]})" if word in _WHY else ""
    raise InputError(f"dtype is {quoted(dtype)}{why}; expected {AUTO}, {', '.join(DTYPES)}")


def dtype_of(format: str) -> str:
    """Return the dtype of a format: "bfloat16" of "bf16"."""
    return _FORMATS[format].dtype


def automatic(stored: Collection[str]) -> str:
    """Return the format that "auto" takes for a checkpoint with these stored dtypes, as safetensors names them.

    It is the format that holds all of them exactly, if this CPU multiplies it, else "f32".
    """
    available = ops.formats()
    for format, names in _FORMATS.items():
        if names.stored.issuperset(stored) and not available[format].expanded:
            return format
    return "f32"
