"""The options of a request: how its items are encoded, and how their tokens are sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from qwenvis.embeddings.rules import DTYPES
from qwenvis.errors import InputError, check_choice, quoted
from qwenvis.videos.video import Sampling

FORMATS = ("safetensors", "npy", "vllm")
TYPES: dict[str, type] = {"format": str, "dtype": str, "colors": bool, "min_pixels": int, "max_pixels": int}
SAMPLING: dict[str, type] = {
    "sampling": str,
    "fps": float,
    "num_frames": int,
    "min_frames": int,
    "max_frames": int,
    "video_fps": float,
}
OPTIONS = TYPES | SAMPLING
WORDS = {str: "text", bool: "true or false", int: "an integer", float: "a number"}


@dataclass(frozen=True)
class Options:
    """The options of a request.

    - ``format``: "safetensors", "npy" or "vllm"; ``dtype``: "float32", "float16" or "bfloat16".
    - ``colors``: whether safetensors get a colour for each token.
    - ``min_pixels``, ``max_pixels`` and the ``sampling`` of videos: arguments of `Encoder.encode`.
    """

    format: str
    dtype: str
    colors: bool
    min_pixels: int | None
    max_pixels: int | None
    sampling: Sampling

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Check the options of a request by name. Raises InputError for unknown names, wrong types, wrong words, and
        formats that cannot hold what is asked for.
        """
        if unknown := [name for name in given if name not in OPTIONS]:
            raise InputError(f"unknown option {quoted(unknown[0])}; there are {', '.join(OPTIONS)}")
        for name, value in given.items():
            wanted = OPTIONS[name]
            if type(value) is not wanted and not (wanted is float and type(value) is int):
                raise InputError(f"{name} is {quoted(value)}; expected {WORDS[wanted]}")
        format, dtype = given.get("format", FORMATS[0]), given.get("dtype", "float32")
        check_choice(format, "format", FORMATS)
        check_choice(dtype, "dtype", tuple(DTYPES))
        colors = given.get("colors", False)
        if colors and format != "safetensors":
            raise InputError(f"colors is true, but format is {quoted(format)}: colours go into safetensors only")
        if format == "npy" and dtype == "bfloat16":
            raise InputError("a .npy file has no bfloat16: ask for safetensors, or for another dtype")
        sampling = cast(Sampling, {name: value for name, value in given.items() if name in SAMPLING})
        pixels = given.get("min_pixels"), given.get("max_pixels")
        return cls(format, dtype, colors, *pixels, sampling)


def parsed(texts: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return options that are given as text, in a query or a form, by name; unknown ones stay text.

    Raises InputError for an option that is given twice, and for text that is not of the type of its option.
    """
    given: dict[str, Any] = {}
    for name, text in texts:
        if name in given:
            raise InputError(f"{quoted(name)} is given twice")
        given[name] = _value(name, text)
    return given


def _value(name: str, text: str) -> Any:
    """Return the value of an option from its text."""
    wanted = OPTIONS.get(name, str)
    try:
        return {"true": True, "false": False}[text] if wanted is bool else wanted(text)
    except (ValueError, LookupError):
        raise InputError(f"{name} is {quoted(text)}; expected {WORDS[wanted]}") from None
