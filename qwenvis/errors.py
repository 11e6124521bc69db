"""The exceptions of the package, one tree.

QwenvisError
├── SourceError           (FileNotFoundError)  a source names no checkpoint that is here
├── CheckpointError       (ValueError)         files or tensors of a checkpoint cannot be used
│   └── ConfigError                            its config.json or preprocessor config cannot be used
├── InputError            (ValueError)         an argument, pixel_values or grid_thw cannot be used
│   ├── ImageError                             an image cannot be used
│   │   └── ImageLimitError                    an image is larger than a limit allows: a LimitError too
│   ├── VideoError                             a video cannot be used
│   │   └── VideoLimitError                    a video is larger than a limit allows: a LimitError too
│   └── LimitError                             an input is larger than a limit allows
├── NumericalError        (ArithmeticError)    the tower made NaN or infinity of an item
└── IsaError              (RuntimeError)       an instruction set is unknown, not compiled or not on this CPU

VideoWarning           (UserWarning)        frames of a video are damaged, and others stand for them

Every message says what was wrong, what was got, what was expected, and where. What it quotes of a file or a caller goes
through `shown`, `quoted` or `listed`. An error about an image or a video of a call says which: `about` sets its
attributes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

MOST_LISTED = 20  # bad items that one error spells out
MOST_GATHERED = 1000  # bad items after which no others are looked for: the argument is something else
LISTED = 10  # names spelt out in a list


class QwenvisError(Exception):
    """Root of every exception that the package raises on purpose; all survive `pickle` and `copy`.

    - ``argument``, ``index``: of an error about one image or video, "images" or "videos", and the position in that
      argument of the call; None of any other error.
    - ``source``: what `Embeddings.sources` calls that item: its path as text, else its position, such as "image 3".
    - ``errors``: of an error about several items, one error of each; else empty.
    - ``done``: of an error that `Encoder.encode` met on its way, the `Embeddings` of all items before it, else None.
    """

    argument: str | None = None
    index: int | None = None
    source: str | None = None
    errors: tuple[QwenvisError, ...] = ()
    done: Any = None


class SourceError(QwenvisError, FileNotFoundError):
    """A source names no checkpoint that is here."""


class CheckpointError(QwenvisError, ValueError):
    """Files or tensors of a checkpoint cannot be used."""


class ConfigError(CheckpointError):
    """A checkpoint's config.json or preprocessor config cannot be used."""


class InputError(QwenvisError, ValueError):
    """An argument, ``pixel_values`` or ``grid_thw`` cannot be used."""


class ImageError(InputError):
    """An image cannot be used."""


class VideoError(InputError):
    """A video cannot be used."""


class VideoWarning(UserWarning):
    """Frames of a video are damaged, and others stand for them."""


class LimitError(InputError):
    """An input is larger than a limit allows."""


class ImageLimitError(ImageError, LimitError):
    """An image is larger than a limit allows."""


class VideoLimitError(VideoError, LimitError):
    """A video is larger than a limit allows."""


class NumericalError(QwenvisError, ArithmeticError):
    """The tower made NaN or infinity of an item, in a layer that the message names; ``index`` is its row of grid_thw.

    Of an image or a video of `Encoder.encode`, ``index`` and ``source`` are as of every other error about one.
    """


class IsaError(QwenvisError, RuntimeError):
    """An instruction set is unknown, not compiled in, or not on this CPU."""


def shown(text: str) -> str:
    """Text from a file, made safe to print and short enough to read."""
    text = text if len(text) <= 200 else text[:200] + "..."
    return text if text.isprintable() else ascii(text)


def quoted(value: object) -> str:
    """A value from a file or a caller as Python writes it, made safe to print and short enough to read."""
    try:
        return shown(repr(value))
    except Exception:  # a caller's own, or Python's, which spells out no integer of more than 4,300 digits
        return f"{type(value).__name__} of very many digits" if isinstance(value, int) else f"a {type(value).__name__}"


def listed(names: Sequence[str]) -> str:
    """Names from a file, the first of them spelt out."""
    rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return (", ".join(shown(name) for name in names[:LISTED]) or "nothing") + rest


def chosen(name: str, value: object, choices: Sequence[str]) -> str:
    """The word that a caller passes as the argument of that name. Raises InputError for none of ``choices``."""
    if not isinstance(value, str) or value not in choices:  # an array compares entry by entry
        raise InputError(f"{name} is {quoted(value)}; expected {' or '.join(choices)}")
    return value


@dataclass(frozen=True)
class Place:
    """Where an item stands in a call: in which argument, "images" or "videos", at which position, under which name."""

    argument: str
    index: int
    source: str

    @classmethod
    def of(cls, argument: str, index: int, given: object) -> Place:
        """The source of an item is its path as text, else its position."""
        path = os.fsdecode(given) if isinstance(given, str | os.PathLike) else None
        return cls(argument, index, f"{argument.removesuffix('s')} {index}" if path is None else path)

    def mark(self, error: QwenvisError) -> None:
        """Let an error say that it is about this item."""
        error.argument, error.index, error.source = self.argument, self.index, self.source


@contextmanager
def about(place: Place) -> Iterator[None]:
    """Errors inside say which item they are about, unless they do already."""
    try:
        yield
    except QwenvisError as error:
        if error.index is None:
            place.mark(error)
        raise


def place(error: QwenvisError) -> tuple[bool, int]:
    """What errors are sorted by, to be in the order of the call: images first."""
    return error.argument != "images", -1 if error.index is None else error.index


_T = TypeVar("_T")
_E = TypeVar("_E", bound=QwenvisError)


def detached(error: _E) -> _E:
    """The error without its tracebacks, which keep alive what the functions held that it came through."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__, link = None, link.__cause__ or link.__context__
    return error


def joined(errors: Sequence[QwenvisError], looked_at: int, noun: str) -> QwenvisError:
    """One error for those of several items; of a single item its own, and of the kind that all are where there is one.

    ``looked_at`` counts the items, the good ones too.
    """
    if len(errors) == 1:
        return errors[0]
    kinds = (ImageLimitError, VideoLimitError, ImageError, VideoError, LimitError, InputError, QwenvisError)
    kind = next(kind for kind in kinds if all(isinstance(error, kind) for error in errors))
    head = f"{len(errors)} of {looked_at} {noun} cannot be used:"
    if len(errors) >= MOST_GATHERED:
        head = f"{len(errors)} of the first {looked_at} {noun} cannot be used, and no others were looked at:"
    lines = [head, *map(str, errors[:MOST_LISTED])]
    if len(errors) > MOST_LISTED:
        lines.append(f"and {len(errors) - MOST_LISTED} more")
    joint = kind("\n  ".join(lines))
    joint.errors = tuple(map(detached, errors))
    return joint


def sifted(makers: Iterable[Callable[[], _T]], *, lenient: bool = False) -> tuple[list[_T], list[InputError]]:
    """What all make, and the errors of those that cannot.

    After `MOST_GATHERED` errors no others are looked for; if ``lenient``, only where nothing could be made until then.
    """
    made: list[_T] = []
    errors: list[InputError] = []
    for maker in makers:
        try:
            made.append(maker())
        except InputError as error:
            errors.append(detached(error) if lenient else error)
            if len(errors) == MOST_GATHERED and not (lenient and made):
                break
    return made, errors


def gathered(makers: Iterable[Callable[[], _T]], noun: str) -> list[_T]:
    """What all make. Raises the error that `joined` makes of those that cannot."""
    made, errors = sifted(makers)
    if errors:
        raise joined(errors, len(made) + len(errors), noun)
    return made
