"""Filters of items as clients give them."""

from __future__ import annotations

from datetime import datetime

import strawberry

from models.item_filters import EVERYTHING, ItemOperator
from models.item_filters import ItemFilter as CheckedFilter
from resolvers import item_filters
from resolvers.item_filters import Path
from schema.enums import publish
from schema.scalars import JSON

publish(
    ItemOperator,
    "How a field of an item is compared with a value. A field that is missing is null.",
    EQ='Equals. A number equals numbers and text that is a plain number: 199900 equals "199900.00". Null equals null.',
    NE="Does not equal; holds for null too, unless the value is null.",
    LT="Is less. With a number, numbers and text that is a plain number count; with text, text by code point, as ISO "
    "dates sort. Nothing else is less or more than anything.",
    LTE="Is less or equal, as LT.",
    GT="Is more, as LT.",
    GTE="Is more or equal, as LT.",
    CONTAINS="A text has the value in it, in any case; a list has an element that equals it.",
    STARTS_WITH="A text begins with the value, in any case.",
    EXISTS="With true: is there and not null. With false: is missing or null.",
    IN="Equals one of a list of up to 100 values.",
)


@strawberry.input(description="A condition on a field of items.")
class ItemCondition:
    """A condition."""

    field: str = strawberry.field(
        description="A field, or a path with dots such as `address.city`; in lists a number names the element, from 0."
    )
    op: ItemOperator = strawberry.field(default=ItemOperator.EQ, description="How to compare.")
    value: JSON | None = strawberry.field(default=None, description="What to compare with; null when left out.")


@strawberry.input(description="Which items; all conditions that are given must hold.")
class ItemFilter:
    """Conditions."""

    search: str | None = strawberry.field(
        default=None,
        description="With this text in the address of the page or in any text or number of the item, in any case; at "
        "most 200 characters.",
    )
    where: list[ItemCondition] | None = strawberry.field(
        default=None, description="Conditions on fields, at most 20; all must hold."
    )
    scraped_from: datetime | None = strawberry.field(default=None, description="Stored at this moment or later.")
    scraped_to: datetime | None = strawberry.field(default=None, description="Stored before this moment.")


def checked(filter: ItemFilter | None, *, path: Path) -> CheckedFilter:
    """The filter that resolvers take; raises ValidationFailed below `path`."""
    if filter is None:
        return EVERYTHING
    return item_filters.checked(
        search=filter.search,
        where=filter.where or (),
        scraped_from=filter.scraped_from,
        scraped_to=filter.scraped_to,
        path=path,
    )
