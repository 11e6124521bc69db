"""Requests that are not served: the status of the answer, and the name and the words of the error in it."""

from __future__ import annotations

from http import HTTPStatus

from qwenvis.errors import ConfigError, InputError, LimitError, NumericalError, QwenvisError

# The status of an answer -> the type of the error in it, where the error is none of `qwenvis.errors`
TYPES = {
    400: "RequestError",
    401: "TokenError",
    403: "OriginError",
    404: "NotFoundError",
    405: "MethodError",
    408: "TimeoutError",
    413: "LimitError",
    415: "MediaTypeError",
    429: "BusyError",
    431: "LimitError",
    500: "InternalError",
    501: "UnsupportedError",
    503: "UnavailableError",
}
RETRIED = (429, 503)  # statuses after which the same request may succeed later


class Refusal(Exception):
    """A request is not served, for a reason that is not an image or a video.

    - ``status``: of the answer, one of `TYPES`.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def refusal(error: Exception) -> tuple[int, str, str, int | None]:
    """Return the status of the answer to an error, and the type, the message and the item that the answer names.

    Messages of other errors than those about the input may name files of this machine, and are replaced.
    """
    if isinstance(error, Refusal):
        return error.status, TYPES[error.status], str(error), None
    if isinstance(error, ConfigError) or isinstance(error.__cause__, ImportError):
        lacks = "the checkpoint or this installation has no processor for it"
        return 501, type(error).__name__, f"this service cannot read such an item: {lacks}", _item(error)
    if isinstance(error, InputError):
        return 413 if isinstance(error, LimitError) else 400, type(error).__name__, str(error), error.index
    if isinstance(error, NumericalError):
        return 500, "NumericalError", str(error), error.index
    if isinstance(error, MemoryError):
        return 503, TYPES[503], "not enough memory at the moment", None
    return 500, TYPES[500], HTTPStatus(500).description, None


def _item(error: Exception) -> int | None:
    """Return the position of the item that an error is about."""
    return error.index if isinstance(error, QwenvisError) else None
