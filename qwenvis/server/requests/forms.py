"""Bodies of the type multipart/form-data, taken apart within limits of their own."""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from qwenvis.server.requests.options import OPTIONS
from qwenvis.server.requests.refusals import Refusal

TEXT = 256  # bytes of an option


@dataclass
class Part:
    """A part of a form: a file if its headers have a file name, else the text of an option."""

    name: str = ""
    is_file: bool = False
    content: bytearray = field(default_factory=bytearray)


def form_parts(body: bytearray, boundary: str, files: int) -> list[Part]:
    """Return the parts of a form of at most so many files; the parser bounds their headers.

    Raises Refusal for a body that is not a whole form, and for a form of too many parts, or with a long option.
    """
    if not boundary:
        raise Refusal(400, "the media type of the form has no boundary")
    form = _Form(files + len(OPTIONS))
    try:
        MultipartParser(boundary, form.callbacks()).write(body)  # type: ignore[arg-type]
    except (FormParserError, ValueError) as error:
        raise Refusal(400, f"the form is damaged: {error}") from None
    if not form.complete:
        raise Refusal(400, "the form ends before its last boundary")
    return form.parts


class _Form:
    """The parts of a form as the parser calls them out."""

    def __init__(self, most: int) -> None:
        self.parts: list[Part] = []
        self.complete = False
        self._most = most
        self._field, self._value = bytearray(), bytearray()

    def callbacks(self) -> dict[str, object]:
        """Return the methods by the names that the parser has for them."""
        names = ("part_begin", "header_field", "header_value", "header_end", "headers_finished", "part_data", "end")
        return {f"on_{name}": getattr(self, f"_{name}") for name in names}

    def _part_begin(self) -> None:
        if len(self.parts) == self._most:
            raise Refusal(413, f"the form has more than {self._most} parts")
        self.parts.append(Part())

    def _header_field(self, data: bytes, start: int, stop: int) -> None:
        self._field += data[start:stop]

    def _header_value(self, data: bytes, start: int, stop: int) -> None:
        self._value += data[start:stop]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            _, parameters = parse_options_header(bytes(self._value))
            self.parts[-1].name = parameters.get(b"name", b"").decode("utf-8", "replace")
            self.parts[-1].is_file = b"filename" in parameters
        self._field, self._value = bytearray(), bytearray()

    def _headers_finished(self) -> None:
        if not self.parts[-1].name:
            raise Refusal(400, "a part of the form has no name")

    def _part_data(self, data: bytes, start: int, stop: int) -> None:
        part = self.parts[-1]
        part.content += memoryview(data)[start:stop]
        if not part.is_file and len(part.content) > TEXT:
            raise Refusal(413, f"an option of the form is longer than {TEXT} bytes; files need a file name")

    def _end(self) -> None:
        self.complete = True
