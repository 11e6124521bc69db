"""Tell objects of a collection, which coexist, from objects of an iterator, which may change them.

An iterator may yield one object repeatedly with new content, such as a buffer for frames or an animation that it
advances. Nothing announces this, so a mutable object must be read before the iterator's next step.
"""

from __future__ import annotations

import io
import os
import sys
import sysconfig
from collections import deque
from collections.abc import Iterable, Iterator, MappingView, Set
from typing import Any

from PIL import Image

from qwenvis.io import sharing

COLLECTIONS = (list, tuple, deque, Set, MappingView)  # their elements coexist


def with_lifetime(things: Iterable[Any]) -> Iterator[tuple[Any, bool]]:
    """Yield each object, and whether it stays unchanged when the iterator advances.

    Mutable bytes are copied, unless they come from a collection.
    """
    if isinstance(things, COLLECTIONS):
        for thing in things:
            yield thing, True
        return
    for thing, references in _counted(things):
        kept = _snapshot(thing)
        yield kept, _is_constant(kept, private=references <= _PRIVATE)


def _counted(things: Iterable[Any]) -> Iterator[tuple[Any, int]]:
    for thing in things:
        yield thing, sys.getrefcount(thing)


# The reference count of an object that only `_counted` holds. Without the GIL, counts are no evidence.
_PRIVATE = 0 if sysconfig.get_config_var("Py_GIL_DISABLED") else next(_counted(object() for _ in range(1)))[1]


def _snapshot(thing: Any) -> Any:
    if isinstance(thing, bytearray | memoryview):
        return bytes(thing)
    if type(thing) is io.BytesIO and not thing.closed:
        return sharing.view(thing)
    return [_snapshot(frame) for frame in thing] if isinstance(thing, list | tuple) else thing


def _is_constant(kept: Any, *, private: bool) -> bool:
    """Return whether an object cannot change.

    An image that Pillow opened by name is constant if nobody else refers to it (``private``).
    """
    if isinstance(kept, list):
        return all(_is_constant(frame, private=False) for frame in kept)
    if isinstance(kept, Image.Image):
        return private and bool(getattr(kept, "filename", ""))
    return isinstance(kept, str | os.PathLike | bytes) or type(kept) is io.BytesIO
