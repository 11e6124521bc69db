"""Read the fields of a config with strict types; an error names the config, the field and the expected value.

Python accepts values of one JSON type as another: true is 1, "no" is true, 14.0 is 14. Here a field has the type that
its reader expects, or raises ConfigError. Null is the same as a missing field, unless the reader consults ``nulls``: in
transformers' processors, null removes the default of a class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qwenvis.errors import ConfigError, quoted

LARGEST = 2**63 - 1


class Section(Mapping[str, Any]):
    """An object of a config file without its null fields, which ``nulls`` lists; ``place`` names it in messages.

    A section made from a section keeps the values and the place of the original.
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
        """The value of a field, of any type."""
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def written(self) -> dict[str, Any]:
        """The object as written in the file, with its null fields."""
        return {**dict.fromkeys(self.nulls), **self._values}

    def refused(self, name: str, expected: str, value: object = None) -> ConfigError:
        """Return the error about a field; the message quotes ``value`` if the field is missing."""
        return ConfigError(f"{self.place} says {name} = {quoted(self.get(name, value))}; expected {expected}")

    def whole(self, name: str, default: int, least: int = 1, largest: int = LARGEST) -> int:
        """Return an integer field within bounds; a float such as 14.0 is refused."""
        value = self.get(name, default)
        if type(value) is not int or not least <= value <= largest:
            raise self.refused(name, f"an integer from {least} to {largest}", value)
        return value

    def number(self, name: str, default: float, above: float, below: float) -> float:
        """Return a number field between two bounds, exclusive."""
        value = self.get(name, default)
        if not is_number(value) or not above < value < below:
            raise self.refused(name, f"a number above {above:g} and below {below:g}", value)
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """Return a boolean field."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise self.refused(name, "true or false", value)
        return value

    def word(self, name: str) -> str:
        """Return a string field, empty if it is missing."""
        value = self.get(name, "")
        if not isinstance(value, str):
            raise self.refused(name, "a string")
        return value

    def indexes(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return a field with a list of integers from 0."""
        value = self.get(name, default)
        if not isinstance(value, list | tuple) or any(type(index) is not int or index < 0 for index in value):
            raise self.refused(name, "a list of integers from 0")
        return tuple(value)

    def part(self, name: str) -> Section:
        """Return a nested object, empty if it is missing."""
        value = self.get(name, {})
        if not isinstance(value, dict):
            raise self.refused(name, "an object")
        return Section(value, f"{self.place}: {name}")


def is_number(value: object) -> bool:
    """Return whether a value is a JSON number; it may be infinite, NaN, or too large for a float."""
    return isinstance(value, int | float) and not isinstance(value, bool)
