"""The fields of a config, checked for their types; an error names the config, the field and the expected value.

Python takes values of one JSON type for another: true is 1, "no" is true, 14.0 is 14. Here a field has the type that
its reader asks for, or raises ConfigError. Null is the same as a missing field, unless the reader asks for ``nulls``:
in transformers' processors null removes the default of a class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qwenvis.errors import ConfigError, quoted

LARGEST = 2**63 - 1


class Section(Mapping[str, Any]):
    """An object of a config file without its ``nulls``; ``place`` is its name in messages.

    A section of a section has the values and the place of the original.
    """

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        self._values = values
        self.nulls: frozenset[str] = frozenset()
        self.place = place
        if isinstance(values, Section):
            self.nulls, self.place = values.nulls, values.place
        else:
            self._values = {name: value for name, value in values.items() if value is not None}
            self.nulls = frozenset(values.keys() - self._values.keys())

    def __getitem__(self, name: str) -> Any:
        """The value of a field, whatever its type."""
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def written(self) -> dict[str, Any]:
        """The object as the file has it, with its ``nulls``."""
        return {**dict.fromkeys(self.nulls), **self._values}

    def refused(self, name: str, expected: str, value: object = None) -> ConfigError:
        """The error about a field; ``value`` is what the message quotes, if not the field itself."""
        return ConfigError(f"{self.place} says {name} = {quoted(self.get(name, value))}; expected {expected}")

    def whole(self, name: str, default: int, least: int = 1, largest: int = LARGEST) -> int:
        """A whole number within bounds, written as an integer."""
        value = self.get(name, default)
        if type(value) is not int or not least <= value <= largest:
            raise self.refused(name, f"an integer from {least} to {largest}", value)
        return value

    def number(self, name: str, default: float, above: float, below: float) -> float:
        """A number between two others."""
        value = self.get(name, default)
        if not is_number(value) or not above < value < below:
            raise self.refused(name, f"a number above {above:g} and below {below:g}", value)
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise self.refused(name, "true or false", value)
        return value

    def word(self, name: str) -> str:
        """A text, empty where there is none."""
        value = self.get(name, "")
        if not isinstance(value, str):
            raise self.refused(name, "a text")
        return value

    def indexes(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """A list of integers from 0."""
        value = self.get(name, default)
        if not isinstance(value, list | tuple) or any(type(index) is not int or index < 0 for index in value):
            raise self.refused(name, "a list of integers from 0")
        return tuple(value)

    def part(self, name: str) -> Section:
        """An object in this one, empty where there is none."""
        value = self.get(name, {})
        if not isinstance(value, dict):
            raise self.refused(name, "an object")
        return Section(value, f"{self.place}: {name}")


def is_number(value: object) -> bool:
    """Whether a value is a number of JSON; it may be infinite or none, and too large for a float."""
    return isinstance(value, int | float) and not isinstance(value, bool)
