"""Properties that crawls of somebody have found: what they may ask for, and the end of one.

Invariant: whoever does not own a listing sees nothing of it, administrators see all. Crawls alone write properties
(`tasks/crawl/datasets.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final
from uuid import UUID

from errors import ValidationFailed
from models import property_queries
from models.audit import AuditEvent
from models.database import Row
from models.permissions import Actor, Permission
from models.property_search import Between, PropertyConditions
from models.transaction import unit_of_work
from resolvers import access, texts

MAX_KILOMETRES: Final = 500
MAX_TEXT_LENGTH: Final = 255
_TEXTS: Final = ("currency", "property_type", "city", "region", "country", "source")


def checked(wanted: PropertyConditions) -> PropertyConditions:
    """The conditions in the form in which they are compared; raises ValidationFailed with the path of a faulty one."""
    for name in ("price", "area", "bedrooms", "bathrooms"):
        _check_bounds(getattr(wanted, name), path=["filter", name])
    for name in _TEXTS:
        text = getattr(wanted, name)
        if text is not None and len(text) > MAX_TEXT_LENGTH:
            raise ValidationFailed(f"This takes at most {MAX_TEXT_LENGTH} characters.", path=["filter", _public(name)])
    near = wanted.near
    if near is not None:
        for name, value, most in (("latitude", near.latitude, 90), ("longitude", near.longitude, 180)):
            if not -most <= value <= most:
                raise ValidationFailed(f"This takes degrees from {-most} to {most}.", path=["filter", "near", name])
        if not 0 < near.kilometres <= MAX_KILOMETRES:
            raise ValidationFailed(
                f"This takes kilometres above 0, up to {MAX_KILOMETRES}.", path=["filter", "near", "kilometres"]
            )
    if wanted.location is not None and len(wanted.location) > texts.MAX_SEARCH_LENGTH:
        raise ValidationFailed(f"This takes at most {texts.MAX_SEARCH_LENGTH} characters.", path=["filter", "location"])
    return replace(
        wanted,
        search=texts.search(wanted.search),
        location=texts.search(wanted.location),
        currency=wanted.currency and wanted.currency.strip().upper(),
        source=wanted.source and wanted.source.strip().lower(),
    )


async def find(actor: Actor, property_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the properties that an actor may see, in one statement."""
    found = await property_queries.find(property_ids)
    return {key: row for key, row in found.items() if access.sees_work(actor, row["owner_id"], None)}


async def delete(actor: Actor, property_id: str) -> None:
    """Remove a property with its prices; a crawl that sees the listing again adds it anew."""
    row = await access.listing(actor, property_id, to=Permission.JOB_WRITE)
    async with unit_of_work():
        if not await property_queries.delete(row["id"]):
            raise access.missing()
        await AuditEvent.record(
            actor,
            "deleteProperty",
            target_type="property",
            target_id=row["id"],
            details={"title": row["title"], "url": row["url"], "owner": str(row["owner_id"])},
        )


def _check_bounds(bounds: Between, *, path: list[str]) -> None:
    for name, value in (("min", bounds.min), ("max", bounds.max)):
        if value is not None and not _is_sensible(value):
            raise ValidationFailed("This takes a number from 0 to 10^18.", path=[*path, name])
    if bounds.min is not None and bounds.max is not None and bounds.min > bounds.max:
        raise ValidationFailed("`min` is above `max`.", path=[*path, "min"])


def _is_sensible(value: Decimal | float) -> bool:
    return math.isfinite(value) and 0 <= value <= 10**18


def _public(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))
