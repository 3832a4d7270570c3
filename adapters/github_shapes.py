"""Reading JSON that GitHub wrote: answers and webhooks are other people's words until their shape was looked at.

Invariant: what these functions return has the type they promise and can be stored; anything else raises
UnexpectedShape, which names the field and never shows its value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

FULL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,100}/[A-Za-z0-9._-]{1,100}", re.ASCII)
COMMIT_HASH: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?", re.ASCII)
_MAX_ID: Final = 2**63 - 1


class UnexpectedShape(Exception):
    """A field is missing or is not what GitHub documents."""

    def __init__(self, field: str) -> None:
        super().__init__(f"`{field}` is missing or not what it should be")
        self.field = field


def mapping(data: Any, *path: str) -> Mapping[str, Any]:
    """The object at a path."""
    found = _at(data, path)
    if not isinstance(found, dict):
        raise UnexpectedShape(".".join(path) or "answer")
    return found


def listing(data: Any, *path: str) -> list[Any]:
    """The array at a path."""
    found = _at(data, path)
    if not isinstance(found, list):
        raise UnexpectedShape(".".join(path) or "answer")
    return found


def text(data: Any, *path: str, max_length: int = 1_024) -> str:
    """The string at a path, cut at `max_length` characters and without NUL, which PostgreSQL does not hold."""
    found = _at(data, path)
    if not isinstance(found, str):
        raise UnexpectedShape(".".join(path))
    return found.replace("\0", "")[:max_length]


def optional_text(data: Any, *path: str, max_length: int = 1_024) -> str | None:
    """The string at a path, None where it or anything on the way is null or missing."""
    found: Any = data
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    if found is None:
        return None
    return text(data, *path, max_length=max_length)


def integer(data: Any, *path: str) -> int:
    """The whole number at a path, from 0 to what a bigint holds: ids and counts."""
    found = _at(data, path)
    if type(found) is not int or not 0 <= found <= _MAX_ID:
        raise UnexpectedShape(".".join(path))
    return found


def boolean(data: Any, *path: str) -> bool:
    """The truth value at a path."""
    found = _at(data, path)
    if not isinstance(found, bool):
        raise UnexpectedShape(".".join(path))
    return found


def moment(data: Any, *path: str) -> datetime | None:
    """The moment at a path, given as RFC 3339 text; None where it is null."""
    found = optional_text(data, *path)
    if found is None:
        return None
    try:
        return datetime.fromisoformat(found).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UnexpectedShape(".".join(path)) from None


def full_name(data: Any, *path: str) -> str:
    """The `owner/name` at a path, safe to put into a URL."""
    found = text(data, *path)
    if not is_full_name(found):
        raise UnexpectedShape(".".join(path))
    return found


def commit_hash(data: Any, *path: str) -> str:
    """The SHA-1 or SHA-256 of a commit at a path."""
    found = text(data, *path)
    if not COMMIT_HASH.fullmatch(found):
        raise UnexpectedShape(".".join(path))
    return found


def is_full_name(found: str) -> bool:
    """Whether a text is `owner/name` as GitHub allows them: no path of the file system can be one."""
    return FULL_NAME.fullmatch(found) is not None and found.rpartition("/")[2] not in {".", ".."}


def _at(data: Any, path: tuple[str, ...]) -> Any:
    for number, name in enumerate(path, start=1):
        if not isinstance(data, dict) or name not in data:
            raise UnexpectedShape(".".join(path[:number]))
        data = data[name]
    return data
