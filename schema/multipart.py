"""Forms with files: `multipart/form-data` (RFC 7578), read piece by piece as it arrives, or from a body that is here.

Invariants: parts, names and headers are bounded, and nothing of a content is held back but what may be the start of a
delimiter; a form that is cut off or otherwise malformed raises; the time is linear in the body. Left out: nested parts,
transfer encodings, `_charset_` (§4.6, §4.7), and where contents go, which is for whoever feeds the reader.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from enum import Enum
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from errors import ValidationFailed

MAX_PARTS: Final = 16
MAX_PART_HEADER_BYTES: Final = 4_096
MAX_PART_HEADERS: Final = 8
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046 §5.1.1
_silent: Final = logging.Logger("multipart", logging.CRITICAL)  # the library logs what strangers send


@dataclass(frozen=True, slots=True)
class Part:
    """A field of a form; `filename` is None for one that is no file."""

    name: str
    filename: str | None
    content: bytes


@dataclass(frozen=True, slots=True)
class PartHead:
    """A part begins: its content follows, as bytes, up to PART_END."""

    name: str
    filename: str | None
    content_type: str | None


class Mark(Enum):
    """What is no content."""

    PART_END = "PART_END"


PART_END: Final = Mark.PART_END
Piece = PartHead | bytes | Mark


def boundary_of(content_type: str) -> str | None:
    """The boundary that a Content-Type names; None when it is not that of a form with files."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
        return None
    return boundary if _BOUNDARY.fullmatch(boundary) else None


class FormReader:
    """Takes the body of a form in chunks of any size and gives back the pieces that they complete.

    Every method raises ValidationFailed for what is no form.
    """

    def __init__(self, boundary: str, *, max_parts: int = MAX_PARTS) -> None:
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._preamble: bytes | None = b"\r\n"  # delimiters begin at a line's start, the first maybe at the body's
        self._pieces: list[Piece] = []
        self._headers = bytearray()
        self._is_in_value = False
        self._parts = 0
        self._max_parts = max_parts
        self._is_over = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_text,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._content,
                "on_part_end": self._end,
                "on_end": self._close,
            },
            max_header_count=MAX_PART_HEADERS,
            max_header_size=MAX_PART_HEADER_BYTES,
        )
        self._parser.logger = _silent

    def feed(self, chunk: bytes) -> list[Piece]:
        """The next bytes of the body; what follows the end of the form is dropped."""
        if self._preamble is not None:
            chunk = self._preamble + chunk
            found = chunk.find(self._delimiter)
            if found < 0:
                self._preamble = chunk[-len(self._delimiter) :]
                return []
            self._preamble = None
            chunk = chunk[found + 2 :]
        if chunk and not self._is_over:
            try:
                self._parser.write(chunk)
            except FormParserError:
                raise _malformed() from None
        pieces, self._pieces = self._pieces, []
        return pieces

    def end(self) -> None:
        """The body is over; raises when the form is not."""
        if not self._is_over:
            raise _malformed()

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > self._max_parts:
            raise ValidationFailed(f"The form has more than {self._max_parts} parts.")
        self._headers.clear()

    def _header_text(self, data: bytes, start: int, end: int) -> None:
        self._headers += data[start:end]
        if len(self._headers) > MAX_PART_HEADER_BYTES:
            raise _malformed()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        if b"\n" in data[start:end]:
            raise _malformed()  # or it would begin a header of its own
        if not self._is_in_value:
            self._headers += b": "
            self._is_in_value = True
        self._header_text(data, start, end)

    def _header_end(self) -> None:
        self._headers += b"\n"
        self._is_in_value = False

    def _headers_end(self) -> None:
        parsed = HeaderParser().parsestr(self._headers.decode("latin-1"))
        name = _parameter(parsed, "name")
        if parsed.get_content_disposition() != "form-data" or name is None:
            raise ValidationFailed("A part of the form has no name.")
        self._pieces.append(PartHead(name, _parameter(parsed, "filename"), parsed.get("content-type")))

    def _content(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def _end(self) -> None:
        self._pieces.append(PART_END)

    def _close(self) -> None:
        self._is_over = True


def read_form(body: bytes, boundary: str) -> list[Part]:
    """The parts of a whole body, in order; raises ValidationFailed."""
    reader = FormReader(boundary)
    parts: list[Part] = []
    head: PartHead | None = None
    content: list[bytes] = []
    for piece in reader.feed(body):
        if isinstance(piece, bytes):
            content.append(piece)
        elif isinstance(piece, PartHead):
            head, content = piece, []
        elif head is not None:
            parts.append(Part(head.name, head.filename, b"".join(content)))
    reader.end()
    return parts


def _malformed() -> ValidationFailed:
    return ValidationFailed("The form is cut off or malformed.")


def _parameter(headers: Message, name: str) -> str | None:
    """A parameter of Content-Disposition; browsers send it as UTF-8 bytes, others percent-encoded (RFC 8187)."""
    value = headers.get_param(name, header="content-disposition")
    if value is None:
        return None
    text = value if isinstance(value, str) else value[2]
    return text.encode("latin-1", "replace").decode("utf-8", "replace")
