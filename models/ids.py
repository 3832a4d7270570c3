"""Identifiers: UUIDv7 inside, typed ids (`run_01h2x…`) outside.

The text form follows the TypeID specification 0.3: a lower-case prefix, an underscore and the UUID as 26
characters of Crockford's base 32. The prefix tells the type, so `node(id)` needs no table to find it.
"""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from uuid_utils.compat import uuid7

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
# Two characters at once: half the divisions of the plain loop, and ids are written by the thousand.
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_SUFFIX_LENGTH = 26


class Prefix(StrEnum):
    """What an id names."""

    USER = "usr"
    SESSION = "ses"
    TOOL = "tool"
    JOB = "job"
    RUN = "run"
    ITEM = "item"
    FILE = "file"
    AUDIT_EVENT = "aud"


class MalformedId(ValueError):
    """The text is no typed id at all."""


def new_id() -> UUID:
    """A fresh UUIDv7 (RFC 9562 §5.7): its order is the order of creation, to the millisecond."""
    return uuid7()


def encode_id(prefix: str, value: UUID) -> str:
    """The typed id of a UUID."""
    number = value.int
    pairs: list[str] = []
    for _ in range(13):
        number, low = divmod(number, 1024)
        pairs.append(_PAIRS[low])
    pairs.reverse()
    return f"{prefix}_{''.join(pairs)}"


def decode_id(text: str) -> tuple[str, UUID]:
    """Prefix and UUID of a typed id; raises MalformedId for anything else, upper case and overflow included."""
    prefix, separator, suffix = text.rpartition("_")
    if not separator or not prefix or len(suffix) != _SUFFIX_LENGTH or suffix[0] > "7":
        raise MalformedId(text)
    number = 0
    try:
        for character in suffix:
            number = number << 5 | _VALUES[character]
    except KeyError:
        raise MalformedId(text) from None
    return prefix, UUID(int=number)
