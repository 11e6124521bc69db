"""How small and how large images may become: the limits of a preprocessor config, and those of a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qwenvis.errors import ConfigError, InputError

EDGES = ("shortest_edge", "longest_edge")  # of ``size``: they are areas or volumes, despite their names
PIXELS = ("min_pixels", "max_pixels")


def read_limits(
    config: Mapping[str, Any], defaults: tuple[int, int], keys: tuple[str, ...] = PIXELS
) -> tuple[int, int]:
    """The smaller and the larger limit of a config without nulls, in the precedence of transformers.

    ``keys`` beside ``size`` come first; without any, the edges of ``size`` alone count. ``defaults`` are the class's,
    for a config that has no ``size``. Raises ConfigError for what is no limit.
    """
    size = config.get("size", dict(zip(EDGES, defaults, strict=True)))
    if not isinstance(size, Mapping):
        raise ConfigError(f"preprocessor config: size is {size!r}; expected shortest_edge and longest_edge")
    found = []
    for key, edge in zip(keys or EDGES, EDGES, strict=True):
        name = f"{key} (or {edge} of size)" if keys else f"{edge} of size"
        # transformers cannot use a size that spells its edges min_pixels and max_pixels; it can only mean the same.
        for value in (config.get(key), size.get(edge), size.get(key)):
            if value is not None:
                found.append(_whole(value, f"preprocessor config: {name}", ConfigError))
                break
        else:
            missing = f"no {edge}" + f", nor is there {key}" * bool(keys)
            raise ConfigError(f"preprocessor config: size is {dict(size)!r} and has {missing}")
    if found[0] > found[1]:
        smaller, larger = keys or EDGES
        raise ConfigError(f"preprocessor config: {smaller} {found[0]} is larger than {larger} {found[1]}")
    return found[0], found[1]


def given_limits(
    checkpoint: tuple[int, int], min_pixels: int | None = None, max_pixels: int | None = None
) -> tuple[int, int]:
    """The limits of a call; None keeps the checkpoint's. Raises InputError for limits that cannot be."""
    smallest = checkpoint[0] if min_pixels is None else _whole(min_pixels, "min_pixels", InputError)
    largest = checkpoint[1] if max_pixels is None else _whole(max_pixels, "max_pixels", InputError)
    if smallest > largest:
        raise InputError(
            f"min_pixels {smallest}{' of the checkpoint' * (min_pixels is None)} is larger than "
            f"max_pixels {largest}{' of the checkpoint' * (max_pixels is None)}; pass both"
        )
    return smallest, largest


def _whole(value: object, name: str, error: type[ConfigError] | type[InputError]) -> int:
    """A limit as a positive int; 1e6 is one too."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 < value < 2**63:
        raise error(f"{name} is {value!r}; expected a whole number of pixels, from 1 to 2**63 - 1")
    return int(value)
