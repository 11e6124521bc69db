"""The exceptions of the package, as one tree.

QwenvisError
├── SourceError           (FileNotFoundError)  no checkpoint is found under the name of a source, or downloaded
├── CheckpointError       (ValueError)         files or tensors of a checkpoint cannot be used
│   └── ConfigError                            its config.json or preprocessor config cannot be used
├── InputError            (ValueError)         an argument, pixel_values or grid_thw cannot be used
│   ├── ImageError                             an image cannot be used
│   │   └── ImageLimitError                    an image is larger than a limit allows: a LimitError too
│   ├── VideoError                             a video cannot be used
│   │   └── VideoLimitError                    a video is larger than a limit allows: a LimitError too
│   ├── LimitError                             an input is larger than a limit allows
│   └── PackageError       (ImportError)       a package that is needed here is missing
├── NumericalError        (ArithmeticError)    the tower computed NaN or infinity for an item
└── IsaError              (RuntimeError)       an instruction set is unknown, not compiled or not on this CPU

VideoWarning           (UserWarning)        frames of a video are damaged, and replaced by their neighbours
CacheWarning           (UserWarning)        a cache cannot be written, so new tokens are not kept

Every message says what was wrong, what was got, what was expected, and where. Text from a file or a caller is quoted
with `shown`, `quoted` or `listed`. `about` sets the attributes of an error about an image or a video of a call.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, SupportsIndex, TypeVar, cast

MAX_LISTED = 20  # bad items that the message of one error lists
MAX_ERRORS = 1000  # bad items after which no others are looked at: the argument is not what the caller thinks
LISTED = 10  # names that a list in a message spells out


class QwenvisError(Exception):
    """The base class of every exception that the package raises on purpose. All can be pickled and copied.

    - ``argument``, ``index``: "images", "videos" or "pixel_values", and the position in that argument (for
      ``pixel_values`` the row of ``grid_thw``), if the error is about one item of a call; else None.
    - ``source``: the name of that item in `Embeddings.sources`: its path as text, else its position, such as "image 3";
      else None.
    - ``errors``: one error for each item, if the error is about several items; else empty.
    - ``done``: the `Embeddings` of all items before the error, if `Encoder.encode`, or the call with ``pixel_values``,
      had begun to encode; else None.
    """

    argument: str | None = None
    index: int | None = None
    source: str | None = None
    errors: tuple[QwenvisError, ...] = ()
    done: Any = None


class SourceError(QwenvisError, FileNotFoundError):
    """No checkpoint is found under the name of a source, or it cannot be downloaded."""


class CheckpointError(QwenvisError, ValueError):
    """The files or tensors of a checkpoint cannot be used."""


class ConfigError(CheckpointError):
    """A checkpoint's config.json or preprocessor config cannot be used."""


class InputError(QwenvisError, ValueError):
    """An argument, ``pixel_values`` or ``grid_thw`` cannot be used."""


class ImageError(InputError):
    """An image cannot be used."""


class VideoError(InputError):
    """A video cannot be used."""


class VideoWarning(UserWarning):
    """Frames of a video are damaged, and replaced by their neighbours."""


class CacheWarning(UserWarning):
    """A cache cannot be written, so new tokens are not kept."""


class LimitError(InputError):
    """An input is larger than a limit allows."""


class PackageError(InputError, ImportError):
    """A package that a part of qwenvis needs is not installed."""


class ImageLimitError(ImageError, LimitError):
    """An image is larger than a limit allows."""


class VideoLimitError(VideoError, LimitError):
    """A video is larger than a limit allows."""


class NumericalError(QwenvisError, ArithmeticError):
    """The tower computed NaN or infinity for an item, in a layer that the message names.

    ``index`` is the row of the item in ``grid_thw``; for images and videos, ``index`` and ``source`` are as in
    `QwenvisError`.
    """


class IsaError(QwenvisError, RuntimeError):
    """An instruction set is unknown, not compiled in, or not on this CPU."""


def spoils_one_item(error: BaseException) -> bool:
    """Whether an error is about one image or video, so that the items after it can still be encoded."""
    missing_package = isinstance(error.__cause__, ImportError)
    return isinstance(error, ImageError | VideoError | LimitError | NumericalError) and not missing_package


def shown(text: str) -> str:
    """Return text from a file, safe to print and cut to 200 characters."""
    text = text if len(text) <= 200 else text[:200] + "..."
    return text if text.isprintable() else ascii(text)


def quoted(value: object) -> str:
    """Return the repr of a value from a file or a caller, safe to print and cut to 200 characters."""
    try:
        return shown(repr(value))
    except Exception:  # of a caller's __repr__, or of Python, which refuses integers of more than 4,300 digits
        return f"{type(value).__name__} of very many digits" if isinstance(value, int) else f"a {type(value).__name__}"


def listed(names: Sequence[str]) -> str:
    """Return names from a file in one line: the first `LISTED` of them, and the number of the others."""
    rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return (", ".join(shown(name) for name in names[:LISTED]) or "nothing") + rest


def counted(number: int, noun: str) -> str:
    """Return a number of things in words: ``1 item``, ``1,000 items``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def check_choice(value: object, name: str, choices: Sequence[str]) -> None:
    """Raise InputError unless an argument is one of the permitted words."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name} is {quoted(value)}; expected {', '.join(choices[:-1])} or {choices[-1]}")


def checked_integer(value: object, name: str, least: int, most: int | None = None) -> int:
    """Return an integer of any library as an int. Raises InputError for other types and for numbers out of bounds."""
    try:
        number = None if isinstance(value, bool) else operator.index(cast(SupportsIndex, value))
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        bounds = f", {least} or more" if most is None else f" from {least} to {most}"
        raise InputError(f"{name} is {quoted(value)}; expected an integer{bounds}")
    return number


@dataclass(frozen=True)
class Place:
    """The place of an item in a call: its argument, "images" or "videos", its position there, and its name."""

    argument: str
    index: int
    source: str

    @classmethod
    def of(cls, argument: str, index: int, given: object) -> Place:
        """Name an item by its path as text, if it is one, else by its position."""
        path = os.fsdecode(given) if isinstance(given, str | os.PathLike) else None
        return cls(argument, index, f"{argument.removesuffix('s')} {index}" if path is None else path)

    def mark(self, error: QwenvisError) -> None:
        """Set the attributes of an error about this item."""
        error.argument, error.index, error.source = self.argument, self.index, self.source

    def claim(self, error: QwenvisError) -> None:
        """Mark an error, whose message begins with its own ``source``, and put the name of this item in its place."""
        error.args = (self.source + str(error).removeprefix(str(error.source)),)
        self.mark(error)


@contextmanager
def about(place: Place) -> Iterator[None]:
    """Mark errors raised inside as errors about this item, unless they name an item already."""
    try:
        yield
    except QwenvisError as error:
        if error.index is None:
            place.mark(error)
        raise


def call_order(error: QwenvisError) -> tuple[bool, int]:
    """Sort key of an error: the place of its item in the call, images before videos."""
    return error.argument != "images", -1 if error.index is None else error.index


_T = TypeVar("_T")
_E = TypeVar("_E", bound=QwenvisError)


def without_traceback(error: _E) -> _E:
    """Return the error without its tracebacks, which keep the variables of every function on its way alive."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__, link = None, link.__cause__ or link.__context__
    return error


def group_errors(errors: Sequence[QwenvisError], total: int, noun: str) -> QwenvisError:
    """Combine the errors of several items into one error of their common class; return a single error unchanged.

    ``total`` is the number of items that were checked, including usable items; ``noun`` is their name in the message.
    """
    if len(errors) == 1:
        return errors[0]
    kinds = (ImageLimitError, VideoLimitError, ImageError, VideoError, LimitError, InputError, QwenvisError)
    kind = next(kind for kind in kinds if all(isinstance(error, kind) for error in errors))
    head = f"{len(errors)} of {total} {noun} cannot be used:"
    if len(errors) >= MAX_ERRORS:
        head = f"{len(errors)} of the first {total} {noun} cannot be used, and the others were not checked:"
    lines = [head, *map(str, errors[:MAX_LISTED])]
    if len(errors) > MAX_LISTED:
        lines.append(f"and {len(errors) - MAX_LISTED} more")
    group = kind("\n  ".join(lines))
    group.errors = tuple(map(without_traceback, errors))
    return group


def try_all(factories: Iterable[Callable[[], _T]], *, lenient: bool = False) -> tuple[list[_T], list[InputError]]:
    """Call all factories; return their results, and the InputErrors of those that fail.

    After `MAX_ERRORS` errors the rest are not called; if ``lenient``, only when no factory has succeeded until then.
    """
    made: list[_T] = []
    errors: list[InputError] = []
    for factory in factories:
        try:
            made.append(factory())
        except InputError as error:
            errors.append(without_traceback(error) if lenient else error)
            if len(errors) == MAX_ERRORS and not (lenient and made):
                break
    return made, errors


def call_all(factories: Iterable[Callable[[], _T]], noun: str) -> list[_T]:
    """Call all factories; return their results. If any fail, raises the error that `group_errors` makes of theirs."""
    made, errors = try_all(factories)
    if errors:
        raise group_errors(errors, len(made) + len(errors), noun)
    return made
