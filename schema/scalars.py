"""The scalars that GraphQL does not have: moments, exact decimal numbers, large integers, free JSON.

Invariant: what a scalar accepts can be stored and sent again. Text without NUL and lone surrogates is not a scalar's
work but `schema/requests.py`'s and `schema/guards.py`'s, which see every string of a request.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, NewType

import strawberry
from strawberry.types.scalar import ScalarDefinition

BigInt = NewType("BigInt", int)
"""A whole number that may be larger than GraphQL's 32 bits."""

JSON = NewType("JSON", object)
"""Any JSON value."""

MAX_SAFE_INTEGER: Final = 2**53 - 1
"""The largest integer that JavaScript's numbers hold exactly (RFC 8259 §6)."""

MAX_JSON_DEPTH: Final = 64

MAX_DECIMAL_DIGITS: Final = 40

_DECIMAL: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)
_RFC_3339: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)


def write_datetime(value: datetime) -> str:
    """RFC 3339 in UTC with `Z`; raises ValueError for a moment without a time zone, which is a fault of ours."""
    if value.tzinfo is None:
        raise ValueError("a moment without a time zone")
    text = value.isoformat() if value.tzinfo is UTC else value.astimezone(UTC).isoformat()
    return text[:-6] + "Z"


def read_datetime(value: Any) -> datetime:
    """The moment in UTC that an RFC 3339 text names; raises ValueError for anything else."""
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        raise ValueError("Expected an RFC 3339 date and time with an offset, such as 2026-01-31T12:00:00Z.")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("There is no such date and time.") from None


def write_decimal(value: Any) -> str:
    """Plain decimal digits without zeros at the end; raises ValueError for what is no finite number."""
    if not isinstance(value, Decimal) or not value.is_finite():
        raise ValueError("not a finite decimal number")
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def read_decimal(value: Any) -> Decimal:
    """The number that a text of digits or a whole JSON number names; raises ValueError for anything else."""
    text = str(value) if type(value) is int and abs(value) <= MAX_SAFE_INTEGER else value
    if not isinstance(text, str) or len(text) > MAX_DECIMAL_DIGITS or not _DECIMAL.fullmatch(text):
        raise ValueError('Expected a decimal number as text, such as "9.99".')
    return Decimal(text)


def write_big_int(value: Any) -> int:
    """The integer; raises ValueError beyond 2^53, where JSON readers would round it."""
    if type(value) is not int or abs(value) > MAX_SAFE_INTEGER:
        raise ValueError("not an integer of at most 2^53 - 1")
    return value


def read_big_int(value: Any) -> int:
    """The integer of a JSON number; raises ValueError for text, fractions, booleans and numbers beyond 2^53."""
    if type(value) is not int or abs(value) > MAX_SAFE_INTEGER:
        raise ValueError("Expected a whole number between -(2^53 - 1) and 2^53 - 1.")
    return value


def read_json(value: Any) -> Any:
    """The value as it is; raises ValueError when it is nested deeper than can be stored and sent again."""
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return value
    raise ValueError(f"Expected JSON that is nested at most {MAX_JSON_DEPTH} levels deep.")


SCALARS: Final[dict[object, ScalarDefinition]] = {
    datetime: strawberry.scalar(
        name="DateTime",
        description="A moment as RFC 3339 text. Answers are in UTC and end with `Z`; input may have any offset.",
        specified_by_url="https://scalars.graphql.org/andimarek/date-time.html",
        serialize=write_datetime,
        parse_value=read_datetime,
    ),
    Decimal: strawberry.scalar(
        name="Decimal",
        description='An exact decimal number as text, such as `"9.99"`. Whole numbers may be given as JSON numbers; '
        "those with a fraction may not, because most readers of JSON round them.",
        serialize=write_decimal,
        parse_value=read_decimal,
    ),
    BigInt: strawberry.scalar(
        name="BigInt",
        description="A whole number as a JSON number, up to 2^53 - 1 in size, which every JSON reader holds exactly.",
        serialize=write_big_int,
        parse_value=read_big_int,
    ),
    JSON: strawberry.scalar(
        name="JSON",
        description="Any JSON value, nested at most 64 levels deep.",
        specified_by_url="https://datatracker.ietf.org/doc/html/rfc8259",
        serialize=lambda value: value,
        parse_value=read_json,
    ),
}
"""For `StrawberryConfig(scalar_map=…)`."""
