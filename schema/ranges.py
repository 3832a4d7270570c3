"""Byte ranges of requests (RFC 9110 §14): which one is asked for, if it is one that is answered.

One range of bytes is answered; several at once and other units are ignored, as the RFC lets a server do.
"""

from __future__ import annotations

import re
from typing import Final

_RANGE: Final = re.compile(rb"bytes=(\d{0,18})-(\d{0,18})")


class Unsatisfiable(Exception):
    """A well-formed range of which the content has no byte."""


def read_range(header: bytes, *, size: int) -> tuple[int, int] | None:
    """The one range asked for, its end exclusive; None for all (RFC 9110 §14.2 lets a server ignore others)."""
    found = _RANGE.fullmatch(header.replace(b" ", b""))
    if found is None:
        return None
    first, last = found.groups()
    if first:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    elif last:
        start, end = max(size - int(last), 0), size
    else:
        return None
    if start >= end:
        raise Unsatisfiable
    return start, end
