"""Publishing enumerations of the domain: every value with words of its own."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import strawberry


def publish(enumeration: type[StrEnum], description: str, **values: str) -> None:
    """Make an enumeration part of the schema; raises KeyError for a value without a description."""
    published: Any = strawberry.enum(enumeration, description=description)
    for value in published.__strawberry_definition__.values:
        value.description = values[value.name]
