"""The smallest and the largest size of resized images: the limits of a preprocessor config, and of a call."""

from __future__ import annotations

import numpy as np

from qwenvis.errors import ConfigError, InputError, quoted
from qwenvis.io.fields import LARGEST, Section

EDGES = ("shortest_edge", "longest_edge")  # of ``size``: areas or volumes, despite the names
PIXELS = ("min_pixels", "max_pixels")
EXPECTED = "a whole number of pixels, from 1 to 2**63 - 1"


def read_limits(config: Section, defaults: tuple[int, int], keys: tuple[str, ...] = PIXELS) -> tuple[int, int]:
    """Return the smaller and the larger limit of a config, in the precedence of transformers.

    Fields named by ``keys`` come before the edges of ``size``; with no ``keys``, only the edges count. ``defaults`` are
    the limits of the class, for a config without ``size``. Raises ConfigError for an invalid limit, null included: only
    the classes that read ``PIXELS`` take null for a missing field.
    """
    if keys != PIXELS and (nulls := sorted(config.nulls & {"size", *keys})):
        raise config.refused(nulls[0], "limits, or no such field")
    size = config.part("size") if "size" in config else Section(dict(zip(EDGES, defaults, strict=True)), config.place)
    found = []
    for key, edge in zip(keys or ("", ""), EDGES, strict=True):
        # transformers fails for a ``size`` whose edges are named min_pixels and max_pixels; the meaning is clear.
        spelt = [(part, name) for part, name in ((config, key), (size, edge), (size, key)) if name in part]
        if not spelt:
            raise config.refused("size", f"{edge} in it" + f", or {key} beside it" * bool(keys))
        part, name = spelt[0]
        limit = _whole(part[name])
        if limit is None:
            raise part.refused(name, EXPECTED)
        found.append(limit)
    if found[0] > found[1]:
        smaller, larger = keys or EDGES
        raise ConfigError(f"{config.place} says that {smaller} {found[0]} is larger than {larger} {found[1]}")
    return found[0], found[1]


def given_limits(
    checkpoint: tuple[int, int], min_pixels: int | None = None, max_pixels: int | None = None
) -> tuple[int, int]:
    """Return the limits of a call; None keeps the checkpoint's limit. Raises InputError for invalid limits."""
    given = {"min_pixels": min_pixels, "max_pixels": max_pixels}
    limits = [own if limit is None else _whole(limit) for own, limit in zip(checkpoint, given.values(), strict=True)]
    for name, limit in zip(given, limits, strict=True):
        if limit is None:
            raise InputError(f"{name} is {quoted(given[name])}; expected {EXPECTED}")
    smallest, largest = (limit or 0 for limit in limits)
    if smallest > largest:
        raise InputError(
            f"min_pixels {smallest}{' of the checkpoint' * (min_pixels is None)} is larger than "
            f"max_pixels {largest}{' of the checkpoint' * (max_pixels is None)}; pass both"
        )
    return smallest, largest


def _whole(value: object) -> int | None:
    """Return a limit as a positive int, None for an invalid one; floats such as 1e6 are valid."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 < value <= LARGEST:
        return None
    return int(value)
