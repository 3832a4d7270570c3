"""Forms with files: `multipart/form-data` (RFC 7578) of a body that was read within its limit.

For small doors that are no GraphQL. Invariants: parts, names and headers are bounded; a form that is cut off or
otherwise malformed raises; the time is linear in the body. Left out: nested parts, transfer encodings, `_charset_`
(§4.6, §4.7).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from typing import Final

from errors import ValidationFailed

MAX_PARTS: Final = 16
MAX_PART_HEADER_BYTES: Final = 4_096
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046 §5.1.1


@dataclass(frozen=True, slots=True)
class Part:
    """A field of a form; `filename` is None for one that is no file."""

    name: str
    filename: str | None
    content: bytes


def boundary_of(content_type: str) -> str | None:
    """The boundary that a Content-Type names; None when it is not that of a form with files."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
        return None
    return boundary if _BOUNDARY.fullmatch(boundary) else None


def read_form(body: bytes, boundary: str) -> list[Part]:
    """The parts in order; raises ValidationFailed."""
    delimiter = b"\r\n--" + boundary.encode("ascii")
    # Delimiters begin at a line's start, the first one maybe at that of the body.
    pieces = (b"\r\n" + body).split(delimiter, MAX_PARTS + 2)
    if len(pieces) > MAX_PARTS + 2:
        raise ValidationFailed(f"The form has more than {MAX_PARTS} parts.")
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise ValidationFailed("The form is cut off or malformed.")
    return list(_parts(pieces[1:-1]))


def _parts(pieces: list[bytes]) -> Iterator[Part]:
    for piece in pieces:
        # What stands after a delimiter on its line is padding.
        padding, line_end, rest = piece.partition(b"\r\n")
        headers, blank, content = rest.partition(b"\r\n\r\n")
        if padding.strip(b" \t") or not line_end or not blank or len(headers) > MAX_PART_HEADER_BYTES:
            raise ValidationFailed("A part of the form is malformed.")
        parsed = HeaderParser().parsestr(headers.decode("latin-1"))
        name = _parameter(parsed, "name")
        if parsed.get_content_disposition() != "form-data" or name is None:
            raise ValidationFailed("A part of the form has no name.")
        yield Part(name, _parameter(parsed, "filename"), content)


def _parameter(headers: Message, name: str) -> str | None:
    """A parameter of Content-Disposition; browsers send it as UTF-8 bytes, others percent-encoded (RFC 8187)."""
    value = headers.get_param(name, header="content-disposition")
    if value is None:
        return None
    text = value if isinstance(value, str) else value[2]
    return text.encode("latin-1", "replace").decode("utf-8", "replace")
