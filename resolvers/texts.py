"""What people type into fields: text that is trimmed and in one Unicode form, numbers, all within bounds.

Characters that PostgreSQL or UTF-8 cannot hold never get this far: the surface refuses them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

from errors import ValidationFailed

MAX_SEARCH_LENGTH: Final = 200

Path = Sequence[str | int]


def line(text: str, *, path: Path, max_length: int) -> str:
    """One line of printable text; raises ValidationFailed with the path."""
    tidy = unicodedata.normalize("NFC", text).strip()
    if not 1 <= len(tidy) <= max_length or not tidy.isprintable():
        raise ValidationFailed(f"This takes 1 to {max_length} characters, all of them printable.", path=path)
    return tidy


def prose(text: str, *, path: Path, max_length: int) -> str:
    """Text of any number of lines, empty too; raises ValidationFailed with the path."""
    tidy = unicodedata.normalize("NFC", text).replace("\r\n", "\n").strip()
    if len(tidy) > max_length:
        raise ValidationFailed(f"This takes at most {max_length} characters.", path=path)
    if not all(character.isprintable() or character in "\n\t" for character in tidy):
        raise ValidationFailed("This takes printable characters and line breaks only.", path=path)
    return tidy


def search(text: str | None) -> str | None:
    """What to look for, None for everything; raises ValidationFailed."""
    if text is None:
        return None
    if len(text) > MAX_SEARCH_LENGTH:
        raise ValidationFailed(f"A search has at most {MAX_SEARCH_LENGTH} characters.", path=["search"])
    return unicodedata.normalize("NFC", text).strip() or None


def within(number: int, low: int, high: int, *, path: Path) -> int:
    """A number from `low` to `high`; raises ValidationFailed with the path."""
    if not low <= number <= high:
        raise ValidationFailed(f"This takes a number from {low:,} to {high:,}.", path=path)
    return number
