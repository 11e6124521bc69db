"""Bytes that arrive as text: base64, and the ``data:`` URLs of RFC 2397 that hold base64."""

from __future__ import annotations

import base64

from qwenvis.errors import ImageError, VideoError

ERRORS = {"image": ImageError, "video": VideoError}


def decoded_url(url: str, kind: str) -> bytes:
    """Return the bytes of a ``data:KIND/...;base64`` URL; ``kind`` is "image" or "video".

    Raises ImageError or VideoError for any other URL, none of which is fetched, and for text that is not base64.
    """
    head, _, data = url.partition(",")
    if not (head.startswith(f"data:{kind}/") and head.endswith(";base64")):
        raise ERRORS[kind](f"the {kind} is not a data:{kind}/...;base64 URL, the only kind of URL that is read here")
    return decoded(data, kind)


def decoded(text: str, kind: str) -> bytes:
    """Return the bytes of base64. Raises ImageError or VideoError for other text."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ERRORS[kind](f"the {kind} is not valid base64: {error}") from error
