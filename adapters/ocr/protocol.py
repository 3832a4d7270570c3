"""What a worker and a reader say to each other: one JSON object per line.

The worker sends one `start`. The reader answers with `document` or `refused`; then, page by page, with `begun` and with
`page` or `failed`; at last with `end`. A reader that stops without `end` was killed or broke, on the page that it
began last. Plain data and the standard library only: the reader imports neither settings nor models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

MAX_LINE_BYTES: Final = 8 * 2**20
MAX_PAGE_CHARACTERS: Final = 200_000
MAX_PAGE_WORDS: Final = 20_000
MAX_WORD_CHARACTERS: Final = 200


class MessageType(StrEnum):
    """What the reader says."""

    DOCUMENT = "document"
    REFUSED = "refused"
    BEGUN = "begun"
    PAGE = "page"
    FAILED = "failed"
    END = "end"


class Fault(StrEnum):
    """Why a document or a page was not read."""

    INVALID_INPUT = "INVALID_INPUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    TIMED_OUT = "TIMED_OUT"
    START_ERROR = "START_ERROR"


class ProtocolError(Exception):
    """A line that no reader sends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A document and how it is read. `skip` are pages that are done; `data_path` is the folder with the languages."""

    path: str
    is_pdf: bool
    languages: list[str]
    data_path: str
    force_ocr: bool
    dpi: int
    max_pages: int
    max_pixels: int
    page_seconds: float
    memory_bytes: int
    skip: list[int] = field(default_factory=list)

    def encode(self) -> bytes:
        """The line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Start:
        """Read the line; raises ProtocolError."""
        try:
            return cls(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise ProtocolError(f"no start message: {error}") from None


def encode(type: MessageType, **fields: Any) -> bytes:
    """A line of the reader's."""
    return json.dumps({"type": type.value, **fields}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Mapping[str, Any]:
    """Read a line of the reader's; raises ProtocolError."""
    try:
        message = json.loads(line)
        MessageType(message["type"])
    except (ValueError, KeyError, TypeError) as error:
        raise ProtocolError(str(error)[:200]) from None
    return dict(message)
