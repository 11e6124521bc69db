"""How small and how large images may become: the limits of a preprocessor config, and those of a call."""

from __future__ import annotations

import numpy as np

from qwenvis.errors import ConfigError, InputError, quoted
from qwenvis.io.fields import LARGEST, Section

EDGES = ("shortest_edge", "longest_edge")  # of ``size``: they are areas or volumes, despite their names
PIXELS = ("min_pixels", "max_pixels")
EXPECTED = "a whole number of pixels, from 1 to 2**63 - 1"


def read_limits(config: Section, defaults: tuple[int, int], keys: tuple[str, ...] = PIXELS) -> tuple[int, int]:
    """The smaller and the larger limit of a config, in the precedence of transformers.

    ``keys`` beside ``size`` come first; without any, the edges of ``size`` alone count. ``defaults`` are the class's,
    for a config that has no ``size``. Raises ConfigError for what is no limit, null included: only the classes that
    read ``PIXELS`` take it for a field that is left out.
    """
    if keys != PIXELS and (nulls := sorted(config.nulls & {"size", *keys})):
        raise config.refused(nulls[0], "limits, or no such field")
    size = config.part("size") if "size" in config else Section(dict(zip(EDGES, defaults, strict=True)), config.place)
    found = []
    for key, edge in zip(keys or ("", ""), EDGES, strict=True):
        # transformers cannot use a size that spells its edges min_pixels and max_pixels; it can only mean the same.
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
    """The limits of a call; None keeps the checkpoint's. Raises InputError for limits that cannot be."""
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
    """A limit as a positive int, None for what is none; 1e6 is one too."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 < value <= LARGEST:
        return None
    return int(value)
