"""Which way lists go: shared by the orders of all lists."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import strawberry


class OrderDirection(StrEnum):
    """Which way a list goes."""

    ASC = "ASC"
    DESC = "DESC"


def describe(enumeration: Any, description: str, **values: str) -> None:
    """Publish an enumeration with a description for each of its values."""
    strawberry.enum(enumeration, description=description)
    for value in enumeration.__strawberry_definition__.values:
        value.description = values[value.name]


describe(
    OrderDirection,
    "Which way a list goes.",
    ASC="Smallest, earliest or alphabetically first at the start.",
    DESC="Largest, latest or alphabetically last at the start.",
)
