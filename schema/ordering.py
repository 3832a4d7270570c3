"""Which way lists go: shared by the orders of all lists."""

from __future__ import annotations

from enum import StrEnum

from schema.enums import publish


class OrderDirection(StrEnum):
    """Which way a list goes."""

    ASC = "ASC"
    DESC = "DESC"


publish(
    OrderDirection,
    "Which way a list goes.",
    ASC="Smallest, earliest or alphabetically first at the start.",
    DESC="Largest, latest or alphabetically last at the start.",
)
