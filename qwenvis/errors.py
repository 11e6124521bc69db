"""The exceptions of the package, one tree.

QwenvisError
├── SourceError        (FileNotFoundError)  a source names no checkpoint that is here
├── CheckpointError    (ValueError)         files or tensors of a checkpoint cannot be used
│   └── ConfigError                         its config.json or preprocessor config cannot be used
├── InputError         (ValueError)         an argument, pixel_values or grid_thw cannot be used
│   ├── ImageError                          an image cannot be used
│   └── VideoError                          a video cannot be used
├── LimitError         (ValueError)         an input is larger than a limit allows
├── NumericalError     (ArithmeticError)    the tower made NaN or infinity of an item
└── IsaError           (RuntimeError)       an instruction set is unknown, not compiled or not on this CPU

Every message says what was wrong, what was got, what was expected, and where. What it quotes of a file goes through
`shown` or `listed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

MOST_LISTED = 20  # bad items that one error spells out
LISTED = 10  # names spelt out in a list


class QwenvisError(Exception):
    """Root of every exception that the package raises on purpose."""


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


class LimitError(QwenvisError, ValueError):
    """An input is larger than a limit allows."""


class NumericalError(QwenvisError, ArithmeticError):
    """The tower made NaN or infinity of an item, in a layer that the message names; ``item`` is its row of grid_thw."""

    def __init__(self, message: str, item: int | None = None) -> None:
        super().__init__(message)
        self.item = item


class IsaError(QwenvisError, RuntimeError):
    """An instruction set is unknown, not compiled in, or not on this CPU."""


def shown(text: str) -> str:
    """Text from a file, made safe to print and short enough to read."""
    text = text if len(text) <= 200 else text[:200] + "..."
    return text if text.isprintable() else ascii(text)


def listed(names: Sequence[str]) -> str:
    """Names from a file, the first of them spelt out."""
    rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return (", ".join(shown(name) for name in names[:LISTED]) or "nothing") + rest


_T = TypeVar("_T")


def gathered(makers: Iterable[Callable[[], _T]], noun: str) -> list[_T]:
    """What all make; one error lists those that cannot: an `InputError`, or `LimitError` where nothing worse was found.

    It is the one error where there is one, and of the kind of all where they are of one kind.
    """
    made: list[_T] = []
    errors: list[InputError | LimitError] = []
    for maker in makers:
        try:
            made.append(maker())
        except (InputError, LimitError) as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        lines = [f"{len(errors)} of {len(made) + len(errors)} {noun} cannot be used:", *map(str, errors[:MOST_LISTED])]
        if len(errors) > MOST_LISTED:
            lines.append(f"and {len(errors) - MOST_LISTED} more")
        kinds = {type(error) for error in errors if isinstance(error, InputError)}
        if not kinds:
            raise LimitError("\n  ".join(lines))
        raise (kinds.pop() if len(kinds) == 1 else InputError)("\n  ".join(lines))
    return made
