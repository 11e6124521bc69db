"""Things as they come: out of a collection, which holds them all, or out of an iterator, which may change them.

An iterator may hand out one object again and again, with something else in it each time: a buffer for frames, an
animation that is wound on. Before the next step nobody can know, so what could change has to be taken as it is.
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

from qwenvis import sharing

HOLDERS = (list, tuple, deque, Set, MappingView)  # what is in them is there at the same time


def handed(things: Iterable[Any]) -> Iterator[tuple[Any, bool]]:
    """Each thing, and whether it lasts: whether it stays as it is when the next one is asked for.

    Bytes that can change are copied on the way; nothing of a collection is.
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


# References to a thing that nobody but `_counted` has. Without the lock of the interpreter a count says little.
_PRIVATE = 0 if sysconfig.get_config_var("Py_GIL_DISABLED") else next(_counted(object() for _ in range(1)))[1]


def _kept(thing: Any) -> Any:
    if isinstance(thing, bytearray | memoryview):
        return bytes(thing)
    if type(thing) is io.BytesIO and not thing.closed:
        return sharing.view(thing)
    return [_kept(frame) for frame in thing] if isinstance(thing, list | tuple) else thing


def _lasts(kept: Any, *, private: bool) -> bool:
    """What cannot change, and an image that Pillow has opened by its name, if nobody else has it."""
    if isinstance(kept, list):
        return all(_lasts(frame, private=False) for frame in kept)
    if isinstance(kept, Image.Image):
        return private and bool(getattr(kept, "filename", ""))
    return isinstance(kept, str | os.PathLike | bytes) or type(kept) is io.BytesIO
