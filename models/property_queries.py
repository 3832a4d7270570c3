"""Properties as they are read and removed: plain rows by id, and what they asked over time.

Whoever may see them is the caller's concern. Lists and searches are in `models/property_search.py`.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from models import database, keyset
from models.database import Row

COLUMNS: Final = (
    "p.id, p.owner_id, p.job_id, p.source, p.source_id, p.url, p.title, p.price, p.currency, p.area, p.area_unit,"
    " p.square_metres, p.price_per_square_metre, p.bedrooms, p.bathrooms, p.property_type, p.street, p.city, p.region,"
    " p.postal_code, p.country, p.latitude, p.longitude, p.description, p.images::text AS images, p.date_posted,"
    " p.first_seen_at, p.last_seen_at, p.last_changed_at, p.price_changed_at, p.gone_at"
)


async def find(property_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the properties that exist, whoever owns them: the caller is the gate."""
    found = await database.rows(f"SELECT {COLUMNS} FROM properties p WHERE p.id = ANY($1::uuid[])", list(property_ids))
    return {row["id"]: row for row in found}


async def prices(
    property_id: UUID,
    *,
    after: tuple[datetime, UUID] | None,
    before: tuple[datetime, UUID] | None,
    backwards: bool,
    limit: int,
) -> list[Row]:
    """What a property asked, newest first, strictly between two sort keys; backwards from the oldest."""
    values: list[Any] = [property_id]
    bounds, by = keyset.between(
        "seen_at, id",
        "${}::timestamptz, ${}::uuid",
        values,
        after=after,
        before=before,
        descending=True,
        backwards=backwards,
    )
    values.append(limit)
    return await database.rows(
        f"""SELECT id, price, currency, seen_at FROM property_prices
            WHERE {" AND ".join(["property_id = $1", *bounds])} ORDER BY {by} LIMIT ${len(values)}""",
        *values,
    )


async def count_prices(property_id: UUID) -> int:
    """How many prices a property had."""
    return int(await database.value("SELECT count(*) FROM property_prices WHERE property_id = $1", property_id))


async def delete(property_id: UUID) -> bool:
    """Remove a property with its prices; False when it is gone already."""
    return await database.value("DELETE FROM properties WHERE id = $1 RETURNING id", property_id) is not None
