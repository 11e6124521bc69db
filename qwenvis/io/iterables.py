"""Objects out of a collection, which holds them all, or out of an iterator, which may change them.

An iterator may yield one object again and again with new content: a buffer for frames, an animation that it advances.
Nothing tells in advance, so an object that could change has to be read before the iterator's next step.
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

HOLDERS = (list, tuple, deque, Set, MappingView)  # collections, whose elements exist at the same time


def handed(things: Iterable[Any]) -> Iterator[tuple[Any, bool]]:
    """Yield each object, and whether it lasts: whether it stays unchanged when the iterator goes on.

    Bytes that can change are copied, unless they are in a collection.
    """
    if isinstance(things, HOLDERS):
        for thing in things:
            yield thing, True
        return
    for thing, references in _counted(things):
        kept = _kept(thing)
        yield kept, _lasts(kept, private=references <= _PRIVATE)


def _counted(things: Iterable[Any]) -> Iterator[tuple[Any, int]]:
    for thing in things:
        yield thing, sys.getrefcount(thing)


# The references to an object that only `_counted` holds. Without the GIL a count says little.
_PRIVATE = 0 if sysconfig.get_config_var("Py_GIL_DISABLED") else next(_counted(object() for _ in range(1)))[1]


def _kept(thing: Any) -> Any:
    if isinstance(thing, bytearray | memoryview):
        return bytes(thing)
    if type(thing) is io.BytesIO and not thing.closed:
        return sharing.view(thing)
    return [_kept(frame) for frame in thing] if isinstance(thing, list | tuple) else thing


def _lasts(kept: Any, *, private: bool) -> bool:
    """Whether an object cannot change; an image that Pillow has opened by name cannot if nobody else refers to it."""
    if isinstance(kept, list):
        return all(_lasts(frame, private=False) for frame in kept)
    if isinstance(kept, Image.Image):
        return private and bool(getattr(kept, "filename", ""))
    return isinstance(kept, str | os.PathLike | bytes) or type(kept) is io.BytesIO
