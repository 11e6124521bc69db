"""Keys of items: one SHA-256 for each, of everything that the bits of its tokens depend on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import TypeAlias

from qwenvis.errors import InputError

UNKNOWN = ""  # the key of an item that was made by hand, or read from a file without keys
TEXT = re.compile(r"(?:[0-9a-f]{64})?")  # of a key, which may be unknown


class ItemKey:
    """The key of an item as text, which is computed at its first use: the weights have to be hashed for it, once.

    A copy and a pickle are the text.
    """

    def __init__(self, content: str, identity: object) -> None:
        """Join the hash of an item and the identity of its encoder, or a dtype and the key of what was rounded to it.

        The text of an identity may raise InputError.
        """
        self._content, self._identity = content, identity

    def __str__(self) -> str:
        """Return 64 hexadecimal digits. Raises InputError if the encoder is gone, and its weights were never hashed."""
        return hashlib.sha256(f"{self._identity} {self._content}".encode()).hexdigest()

    def __reduce__(self) -> tuple[Callable[[object], str], tuple[str]]:
        """Return the text, which is `UNKNOWN` if the encoder is gone."""
        return str, (text(self),)


Key: TypeAlias = ItemKey | str


def text(key: Key) -> str:
    """Return a key as text: `UNKNOWN` if it can no longer be computed."""
    try:
        return str(key)
    except InputError:
        return UNKNOWN


def rounded_keys(keys: Iterable[Key], dtype: str) -> list[Key]:
    """Return the keys of the same items in another dtype."""
    return [key if key == UNKNOWN else ItemKey(dtype, key) for key in keys]


def checked(keys: Iterable[Key]) -> list[str]:
    """Return keys as text. Raises InputError if one of them is unknown."""
    found = [str(key) for key in keys]
    if UNKNOWN in found:
        raise InputError(
            f"item {found.index(UNKNOWN)} has no key: it was made or changed by hand, read from a file without keys, "
            "or copied after its encoder was gone; encode it again, and ask for keys while the encoder exists"
        )
    return found
