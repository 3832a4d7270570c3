"""What items of crawls say, brought to what columns can hold: text, exact numbers, hosts. Pure, never raises.

Sites say anything, and a value that does not fit must cost neither its item nor the crawl: it is cut or left out.
"""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import urlsplit

MAX_URL_CHARACTERS: Final = 8_000
MAX_SOURCE_CHARACTERS: Final = 255
MAX_NUMBER_CHARACTERS: Final = 60
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def line(value: Any, max_characters: int) -> str | None:
    """One line of printable text, shortened; None where there is none."""
    text = prose(value, max_characters * 4)
    if text is None:
        return None
    text = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return text[:max_characters].rstrip() or None


def prose(value: Any, max_characters: int) -> str | None:
    """Text of any number of lines, shortened; None where there is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value).replace("\r\n", "\n").strip()
    kept = "".join(each for each in text[:max_characters] if each.isprintable() or each in "\n\t")
    return kept.strip() or None


def number(value: Any) -> Decimal | None:
    """A finite number, exactly as it is written; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value).strip()
    if len(text) > MAX_NUMBER_CHARACTERS:
        return None
    with suppress(InvalidOperation):
        found = Decimal(text)
        return found if found.is_finite() else None
    return None


def amount(value: Any, *, most: Decimal, decimals: int, above_zero: bool = False) -> Decimal | None:
    """A number from zero, or above it, to `most`, rounded; None for others."""
    found = number(value)
    if found is None or not 0 <= found <= most:
        return None
    rounded = round(found, decimals)
    return None if above_zero and rounded == 0 else rounded


def currency(value: Any) -> str | None:
    """An ISO 4217 code; None for what does not look like one."""
    text = value.strip().upper() if isinstance(value, str) else ""
    return text if len(text) == 3 and text.isascii() and text.isalpha() else None


def url(value: Any) -> str | None:
    """An absolute http URL; None for others, and for one that is longer than anybody means."""
    if not isinstance(value, str) or len(value) > MAX_URL_CHARACTERS or not value.isprintable():
        return None
    return value if source_of(value) is not None else None


def source_of(value: str) -> str | None:
    """The host of an http URL in lower case, with a port that is not the usual one; None where there is none."""
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not host or len(host) > MAX_SOURCE_CHARACTERS - len(":65535"):
        return None
    return host if port in {None, _DEFAULT_PORTS[parts.scheme]} else f"{host}:{port}"
